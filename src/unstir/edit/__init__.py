"""A trained model and pictures of one's own: fill in, vary, invert, blend, and morph between classes."""

from unstir.edit.editing import Edited, psnr
from unstir.edit.edits import blend, inpaint, invert, morph, vary
from unstir.edit.stack import Filled, inpaint_stack

__all__ = ["Edited", "Filled", "blend", "inpaint", "inpaint_stack", "invert", "morph", "psnr", "vary"]
