"""DeltaNet: the delta rule, and nothing that decays."""
