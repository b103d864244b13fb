"""Turn a file of torch.save into safetensors without trusting it; run as a program of its own.

    python -I torch_file.py weights.pt weights.safetensors

Such a file is a pickle, and a pickle is a program. ``weights_only=True`` lets it build tensors and tables and nothing
else; since that has been got round before (CVE-2025-32434, CVE-2026-24747), the process has bounded memory and
processor time, and writes no large files. On any doubt it writes one line to stderr and exits 1.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_GIGABYTE = 1 << 30
_SECONDS = 600


def _tensors(table: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The names and tensors in nested tables; in lists they are numbered."""
    import torch

    if isinstance(table, torch.Tensor):
        yield name, table.detach().cpu().contiguous().clone()  # clone: tensors of one storage are two in safetensors
    elif isinstance(table, Mapping | list | tuple) and depth < 8:
        for key, value in table.items() if isinstance(table, Mapping) else enumerate(table):
            yield from _tensors(value, f"{name}.{key}" if name else str(key), depth + 1)


def convert(source: Path, target: Path) -> str:
    """Write the tensors of ``source`` to ``target``; what is wrong in a line, "" where nothing is."""
    import torch
    from safetensors.torch import save_file

    with source.open("rb") as file:
        if file.read(2) not in (b"PK", b"\x80\x02"):  # a zip, or as it was written before torch 1.6
            return "it is damaged, or no file of torch.save"
    try:
        named = dict(_tensors(torch.load(source, map_location="cpu", weights_only=True)))
    except MemoryError:
        return "it asks for too much memory"
    except Exception as error:  # a damaged or hostile file raises anything at all
        asks = any(word in str(error) for word in ("Unsupported", "WeightsUnpickler", "weights_only"))
        return "it asks for more than tensors and tables" if asks else "it is damaged, or no file of torch.save"
    if not named:
        return "it holds no tensors"
    save_file(named, target)
    return ""


def _limit(size: int) -> None:
    try:
        import resource
    except ImportError:
        sys.exit("Windows cannot bound what reading a pickle takes; convert it to safetensors on Linux or macOS")
    memory = 8 * _GIGABYTE + 4 * size
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + (1 << 24),) * 2)


if __name__ == "__main__":
    _limit(Path(sys.argv[1]).stat().st_size)
    sys.exit(convert(*map(Path, sys.argv[1:])) or 0)
