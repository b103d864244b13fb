"""A run as a page that a person wants to read: figures, pictures and what they say."""
