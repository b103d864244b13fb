"""Many images from a trained model: exactly as many as asked, image i the same in whatever batch and job it is made."""

from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import drawn_classes, image_path, name_of, read_images, save_images, settings_of
from unstir.generate.trajectory import trajectory

__all__ = [
    "Job",
    "drawn_classes",
    "image_path",
    "name_of",
    "read_images",
    "sample_batches",
    "save_images",
    "settings_of",
    "trajectory",
]
