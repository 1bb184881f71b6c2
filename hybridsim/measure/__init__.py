"""Times of a model's blocks: measured, stored, and estimated between what is stored.

`block` says what a block is, `point` where it is timed, `store` keeps the rows, `plan` which are
worth having (none of these imports torch); `subject`, `timing` and `run` measure.
"""
