"""FLOPs counted on the compiled model, by fvcore and by torch, with a rule for every operator."""
