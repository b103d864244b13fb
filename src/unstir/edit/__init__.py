"""A trained model and pictures of one's own: fill in, vary, invert, blend, and morph between classes."""

from unstir.edit.editing import Edited, psnr
from unstir.edit.edits import blend, inpaint, inpaint_steps, invert, morph, preview, vary, vary_steps
from unstir.edit.stack import Filled, inpaint_stack

__all__ = [
    "Edited",
    "Filled",
    "blend",
    "inpaint",
    "inpaint_stack",
    "inpaint_steps",
    "invert",
    "morph",
    "preview",
    "psnr",
    "vary",
    "vary_steps",
]
