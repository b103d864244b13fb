"""Trackers: a training as it goes on, shown by TensorBoard or Weights & Biases; an `Observer` in a file each."""
