"""Models in and out: a run as files that other programs read, and the files of others as a run."""
