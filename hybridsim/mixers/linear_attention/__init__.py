"""Linear attention: a positive feature map in place of the softmax, and nothing that decays."""
