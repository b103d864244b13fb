"""What a measurement was made on: processor, memory, threads, versions, load, and the limit of its arithmetic."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from unstir.diffusion.arithmetic import kernels

PACKAGES = ("torch", "diffusers", "denoising-diffusion-pytorch", "unstir")
EXTENSIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def described(device: torch.device) -> list[tuple[str, str]]:
    """Rows of (what, text)."""
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    rows = [("processor", f"{processor()}, {threads}, {memory() / 2**30:.0f} GiB")]
    if device.type == "cuda":
        at = torch.cuda.get_device_properties(device)
        cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        rows.append(("device", f"{at.name}, {at.total_memory / 2**30:.0f} GiB, {cuda}"))
        rows.append(("kernels", kernels(device)))
    load = os.getloadavg()[0]
    loaded = "" if load < 0.3 else f"; load average {load:.1f} as it began, so other processes had a part of it"
    rows.append(("day", f"{datetime.date.today().isoformat()}{loaded}"))
    rows.append(("versions", f"Python {platform.python_version()}, {', '.join(versions())}"))
    return rows


def processor() -> str:
    """Its name, with the widest of the extensions that matter to products of matrices."""
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    known = [extension for extension in EXTENSIONS if extension in fields.get("flags", "").split()]
    return f"{name} ({known[0]})" if known else name


def memory() -> float:
    """Bytes of physical memory; 0 where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return 0.0


def versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # a source tree that is not installed
            found.append(package)
    return [*found[:-1], f"{found[-1]}{commit()}"]


def commit() -> str:
    """The commit of this source tree, in brackets; "" where git or the tree is not there."""
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({said.stdout.strip()})"


def command() -> str:
    """What was typed, to be typed again."""
    return " ".join(["python", "benchmarks/against.py", *sys.argv[1:]])
