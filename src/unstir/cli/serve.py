"""`unstir serve`."""

import logging
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from unstir.cli.app import app, show


@app.command
def serve(runs: list[Path] | None = None, /, *, port: int = 0, open_: bool = False) -> int:
    """Show models and runs in the browser: sample, compare, edit, watch a training, and understand each step.

    The pages are for this machine alone: the server listens on 127.0.0.1, and their address holds a random token.
    The models that come with unstir and the runs in ./runs are there too. Ctrl-C ends it.

    Example: `unstir serve`

    Example: `unstir serve runs/mnist --port 8000 --open`

    Args:
        runs: Folders of runs to show besides.
        port: Port of 127.0.0.1; by default any that is free.
        open_: Open the first page in the browser.
    """
    from unstir.serve.server import open_server

    server = open_server(runs or (), port)
    show(f"open     {server.address}", "Ctrl-C ends it.")
    sys.stdout.flush()  # of a pipe, or nobody would read the address
    if open_:
        webbrowser.open(server.address)
    logging.getLogger("unstir").setLevel(logging.WARNING)  # the pages say the rest
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0
