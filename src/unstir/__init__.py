"""Train a denoising diffusion model on images, sample from it, and understand every step."""

from importlib.metadata import version

__version__ = version("unstir")
