"""Many images from a trained model: exactly as many as asked, image i the same in whatever batch and job it is made."""
