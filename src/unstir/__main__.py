"""`python -m unstir` is the command `unstir`."""

from unstir.cli import main

main()
