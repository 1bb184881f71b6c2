"""Short trainings of small models that show what a pattern can and cannot do."""
