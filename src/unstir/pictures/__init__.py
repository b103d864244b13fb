"""Pictures for people: arrays in, image files out."""
