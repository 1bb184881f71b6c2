"""What a model is: a declarative spec, read from YAML, checked, and free of torch."""
