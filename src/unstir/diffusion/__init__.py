"""Theory joined to a network, which is always passed in as an argument."""
