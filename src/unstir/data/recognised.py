"""A file of ONNX that was named in the place of something else, known by its name."""

from pathlib import Path

from unstir.errors import UserError


def refuse_onnx(path: Path, lacks: str) -> None:
    """Raise UserError where a path is a file of ONNX, or a folder that has one, which has no such thing as it lacks."""
    if path.suffix.lower() == ".onnx" if path.is_file() else path.is_dir() and any(path.glob("*.onnx")):
        raise UserError("", path, f"is ONNX and has no {lacks}", "name the run that it was exported from")
