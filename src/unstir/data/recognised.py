"""What a path is that was named in the place of another: by its name and what lies in it, without reading images."""

from pathlib import Path

from unstir.errors import UserError

ARRAYS = ".npy", ".npz"


def holds_images(path: Path) -> bool:
    """Whether a path is a folder with an image in it or in a subfolder, or a zip or a NumPy file."""
    if path.is_dir():
        from unstir.data.listing import list_folder

        return bool(list_folder(path).entries)
    return path.is_file() and path.suffix.lower() in (*ARRAYS, ".zip")


def refuse_onnx(path: Path, lacks: str) -> None:
    """Raise UserError where a path is a file of ONNX, or a folder that has one, which has no such thing as it lacks."""
    if path.suffix.lower() == ".onnx" if path.is_file() else path.is_dir() and any(path.glob("*.onnx")):
        raise UserError("", path, f"is ONNX and has no {lacks}", "name the run that it was exported from")
