"""Programs of this package in processes of their own, fed through pipes.

One of multiprocessing would run the script of the user a second time, unless that has an `if __name__ == "__main__"`.
"""

import os
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen


def start(program: str, *arguments: str) -> Popen[bytes]:
    """Start Python with a program and its arguments, on pipes, without errors; Ctrl-C reaches its parent alone."""
    modules, here = [path for path in sys.path if path], str(Path(__file__).parents[1])
    if here not in modules:
        modules.insert(0, here)  # this package was found in the current folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(modules), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", program, *arguments]
    return Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True)
