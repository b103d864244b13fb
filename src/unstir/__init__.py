"""Train a denoising diffusion model on images, sample from it, and understand every step."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("unstir")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
