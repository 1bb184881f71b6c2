"""Published weights: which tensor of a checkpoint each of our parameters is, and reading them."""
