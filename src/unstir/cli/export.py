"""`unstir export`."""

from pathlib import Path
from typing import Literal

from unstir.cli.app import app, show
from unstir.cli.options import RunFolder, WeightOptions


@app.command
def export(
    run: RunFolder,
    /,
    *,
    to: Literal["diffusers", "onnx", "safetensors"],
    out: Path,
    weights: WeightOptions = WeightOptions(),
) -> int:
    """Write a trained model as files of another program. The files are read again and compared with the model.

    Example: `unstir export runs/mnist --to diffusers --out mnist-diffusers`

    Args:
        to: "diffusers" is a folder that DDPMPipeline and DDIMPipeline load, "onnx" the network alone, for any batch.
            "safetensors" is one file of weights with its settings, which --train.init takes.
        out: A new folder for the files.
    """
    from unstir.interop.exporting import export as export_model
    from unstir.runs.run import Run

    done = export_model(weights.model(Run.open(run), device="cpu"), to, out)
    show(*done.lines)
    return 0
