"""Many images from a trained run: exactly as many as asked, image i the same in whatever batch and job it is made."""

from unstir.generate.drawing import generate, load_denoisers
from unstir.generate.folder import drawn_classes, image_path, read_images, save_images, settings_of
from unstir.generate.job import Job, labels
from unstir.generate.way import way

__all__ = [
    "Job",
    "drawn_classes",
    "generate",
    "image_path",
    "labels",
    "load_denoisers",
    "read_images",
    "save_images",
    "settings_of",
    "way",
]
