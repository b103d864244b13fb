"""Trackers: what a run's folder holds of each step, shown by TensorBoard or Weights & Biases.

For each tracker a process of its own (`following`) reads the folder as it is written and passes it on: training waits
for none, and what a tracker shows is what the files say. `folder` makes rows of the files, a file each writes them.
"""
