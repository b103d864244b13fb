"""Weights in files of others, of safetensors or of torch.save: tensors by name, with the hash of the file."""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from unstir.data.disk import file_sha256
from unstir.errors import UserError
from unstir.runs.checkpoint import read_tensors

_SAFE_TORCH = (2, 10)  # the first whose weights_only=True has no known way round


def read_weights(file: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, floating ones as float32, and its SHA-256 (hex); UserError for another file."""
    sha256 = file_sha256(file)
    if file.suffix == ".safetensors":
        return _safetensors(file, file), sha256
    _check_torch(file)
    with tempfile.TemporaryDirectory() as folder:
        safe = Path(folder) / "weights.safetensors"
        program = Path(__file__).with_name("torch_file.py")
        command = [sys.executable, "-I", str(program), str(file), str(safe)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["its reader ended early"]
            raise UserError("", file, f"is refused: {lines[-1]}", "name a file of weights")
        return _safetensors(safe, file), sha256


def _safetensors(file: Path, named: Path) -> dict[str, Tensor]:
    try:
        tensors = read_tensors(file)[1]
    except (SafetensorError, ValueError, OverflowError, TypeError, AttributeError) as error:
        raise UserError("", named, f"is damaged or no safetensors file: {error}", "fetch it again") from None
    return {name: t.float().clone() if t.is_floating_point() else t.clone() for name, t in tensors.items()}


def _check_torch(file: Path) -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _SAFE_TORCH:
        newer = f"pip install 'torch>={'.'.join(map(str, _SAFE_TORCH))}'"
        unsafe = f"is a pickle, which torch {torch.__version__} does not read safely (CVE-2026-24747)"
        raise UserError("", file, unsafe, (newer, "convert it to safetensors"))
