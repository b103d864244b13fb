"""What a trained run is worth, in figures.

Read in this order: `features` (networks whose features compare images), `distances` (between sets of
features), `figures` and `measure` (figures of sets of images, with their bounds and errors), `evaluation` (figures with
their protocol), `evaluate` (from a run to an evaluation). `likelihood` stands apart: the bound in bits per dimension.
"""
