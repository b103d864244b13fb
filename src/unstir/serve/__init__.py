"""What is shown in a browser: the page of a run with its network in it, and the pages of `unstir serve`."""
