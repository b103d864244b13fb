"""A trained model and pictures of one's own: fill in, vary, invert, blend, and morph between classes."""

from unstir.edit.edits import Edited, blend, inpaint, invert, morph, psnr, vary

__all__ = ["Edited", "blend", "inpaint", "invert", "morph", "psnr", "vary"]
