"""Networks of your own, found by name; a module is loaded only where the user names it, never because a file does.

A class that `network` decorates is known as MODULE:CLASS to the settings of a run (model.type) once its module is
loaded. A run may come from a stranger, and importing runs code: what its config.toml names is therefore loaded
only where the user has said so, by typing --model.type, by a TOML file of their own, by the environment variable
UNSTIR_NETWORKS (modules, separated by commas), or by importing the module themselves.

Such a class takes (in_channels, out_channels, num_labels, **options) and makes a module with

    forward(x, t, condition=None)     x float [B, C, H, W], t int64 [B] in 0..T-1

whose condition is a class, int64 [B] below num_labels, a vector, float [B, num_labels], or an image, float [B,
num_labels, H, W] (`UNet.forward` says more), to float [B, out_channels, H, W]. It may also take ``dropout_key`` and
``augmentation``, as `UNet.forward` does.
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unstir.errors import UserError

if TYPE_CHECKING:
    from torch import nn

VARIABLE = "UNSTIR_NETWORKS"
Network = TypeVar("Network", bound="type[nn.Module]")
_known: dict[str, "type[nn.Module]"] = {}
_allowed: set[str] = set()


def network(cls: Network) -> Network:
    """Decorate the class of a network, so that model.type = "MODULE:CLASS" finds it; it is returned as it is.

    Of a program that is run, the module is the name of its file, as others would import it.
    """
    module = cls.__module__
    if module == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        module = Path(file).stem
    _known[f"{module}:{cls.__name__}"] = cls
    return cls


def allow(name: str) -> None:
    """Let the module of MODULE:CLASS be loaded when it is needed, for the user has named it."""
    _allowed.add(name.partition(":")[0])


def find(name: str) -> "type[nn.Module]":
    """The class of MODULE:CLASS. Raises UserError where the user has not named its module, or it has no such class."""
    if name in _known:
        return _known[name]
    module = name.partition(":")[0]
    if module not in _allowed | {item.strip() for item in os.environ.get(VARIABLE, "").split(",")}:
        trust = f"where you trust {module}, type {VARIABLE}={module} before the command, or import it first"
        raise UserError("", f"the network {name}", "is code of its own, which a run does not hold", trust)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that no file there stands for an installed module
    try:
        importlib.import_module(module)
    except Exception as error:
        mend = f"mend it there, or type the command in the folder of {module}.py"
        raise UserError("", f"the module {module}", f"cannot be loaded: {said(error)}", mend) from None
    if name not in _known:
        lacking = f"has no network {name.partition(':')[2]}"
        raise UserError("", f"the module {module}", lacking, "put @unstir.network above the class")
    return _known[name]


def make(name: str, sizes: tuple[int, int, int], options: Mapping[str, Any]) -> "nn.Module":
    """The network of a name for (in_channels, out_channels, num_labels). Raises UserError as `find`, or as it fails."""
    cls = find(name)
    try:
        return cls(*sizes, **options)
    except Exception as error:
        given = ", ".join(map(str, (*sizes, *(f"{key}={value!r}" for key, value in options.items()))))
        raise UserError("", f"the network {name}", f"cannot be made with ({given}): {said(error)}") from None


def takes(net: "nn.Module", name: str) -> bool:
    """Whether the forward pass of a network takes an argument of this name."""
    parameters = inspect.signature(net.forward).parameters
    return name in parameters or any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())


def said(error: Exception) -> str:
    """An exception of the user's own code in one line: its kind, its message, and the last line of theirs that ran."""
    own = __file__, importlib.__file__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in own]
    theirs = [frame for frame in frames if "site-packages" not in frame.filename and "<frozen" not in frame.filename]
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({Path(error.filename).name}, line {error.lineno})"
    else:
        where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())[:300]
    return f"{type(error).__name__}: {text}{where}"
