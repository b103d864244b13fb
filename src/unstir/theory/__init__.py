"""The mathematics of the forward and the reverse process, without a network."""
