"""A trained model and pictures of one's own: fill in, vary, invert, blend, and morph between classes."""

from unstir.edit.editing import Edited
from unstir.edit.edits import blend, inpaint, inpaint_steps, invert, morph, preview, vary, vary_steps

__all__ = ["Edited", "blend", "inpaint", "inpaint_steps", "invert", "morph", "preview", "vary", "vary_steps"]
