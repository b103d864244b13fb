"""A trained model and pictures of one's own: fill in, vary, invert, blend, and morph between classes."""

from unstir.edit.editing import Edited, psnr
from unstir.edit.edits import blend, inpaint, invert, morph, vary

__all__ = ["Edited", "blend", "inpaint", "invert", "morph", "psnr", "vary"]
