"""Tables, files and pictures, from records only."""
