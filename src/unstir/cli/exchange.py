"""Models in and out: `unstir export`, `unstir import`, `unstir push` and `unstir pull`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from unstir.chain import FAST
from unstir.cli.app import app, show
from unstir.cli.options import FLAT, OutFolder, RunFolder, WeightOptions
from unstir.errors import quoted
from unstir.interop.foreign import Asked


@app.command
def export(
    run: RunFolder,
    /,
    *,
    to: Literal["diffusers", "onnx", "safetensors"],
    out: OutFolder | None = None,
    weights: WeightOptions = WeightOptions(),
) -> int:
    """Write a trained model as files of another program. The files are read again and compared with the model.

    Example: `unstir export runs/mnist --to diffusers --out mnist-diffusers`

    Example: `unstir export runs/mnist --to onnx --checkpoint best`

    Args:
        to: "diffusers" is a folder that DDPMPipeline and DDIMPipeline load, "onnx" the network alone, for any batch.
            "safetensors" is one file of weights with its settings, which --train.init takes.
        out: A new folder for the files; by default RUN/exported/TO-stepSTEP.
    """
    from unstir.interop.exporting import export as export_model
    from unstir.runs.run import Run

    done = export_model(weights.model(Run.open(run), device="cpu"), to, out)
    show(*done.lines)
    return 0


@app.command(name="import")
def import_(
    source: Annotated[str, Parameter(help="A folder, a checkpoint, or a model of the Hugging Face Hub: OWNER/NAME.")],
    /,
    *,
    out: OutFolder,
    asked: Annotated[Asked, FLAT] = Asked(),
) -> int:
    """Make a run from a model of another program. Every command but `train` takes it; --train.init begins from it.

    The run has no data and no training. `evaluate`, `likelihood`, `report` and `doctor` compare it with the images of
    --store.

    Example: `unstir import google/ddpm-cifar10-32 --out runs/google`

    Args:
        out: A new folder for the run.
    """
    from unstir.interop.importing import import_run

    done = import_run(source, out, asked)
    steps = min(FAST.steps, done.run.config.diffusion.T)
    sample = f"unstir sample {quoted(out)} --num 16 --sampler {FAST.sampler} --steps {steps}"
    show(*done.lines, f"sample   {sample}")
    return 0


@app.command
def push(
    run: RunFolder,
    name: Annotated[str, Parameter(help="Name of the model on the Hub: OWNER/NAME.")],
    /,
    *,
    private: bool = False,
    licence: str = "",
    data_licence: str = "",
    weights: WeightOptions = WeightOptions(),
) -> int:
    """Publish a trained model on the Hugging Face Hub: weights, settings, samples, figures, and a page about them.

    The page (README.md) has samples, the figures of `unstir evaluate` with their protocols, the data and the licences.
    It says how to load the model in unstir and, where possible, in diffusers. Paths of this machine are left out.
    Log in before with `hf auth login`, or set HF_TOKEN.

    Example: `unstir push runs/mnist me/ddpm-mnist --licence cc-by-sa-3.0`

    Args:
        private: Make a new repository private.
        licence: Licence of the model, as the Hub names it, such as apache-2.0 or cc-by-4.0.
        data_licence: Licence of the training images, in words.
    """
    from unstir.interop.published import push as publish
    from unstir.runs.run import Run

    model = weights.model(Run.open(run), device="cpu")
    show(*publish(model, name, private=private, licence=licence, data_licence=data_licence).lines)
    return 0


@app.command
def pull(
    name: Annotated[str, Parameter(help="Name of the model on the Hub: OWNER/NAME, or OWNER/NAME@REVISION.")],
    /,
    *,
    out: OutFolder | None = None,
) -> int:
    """Make a run of a model that `unstir push` published. Files fetched before are read without a network.

    The run samples, evaluates and exports as where it was trained, and has its figures. It cannot be continued.

    Example: `unstir pull me/ddpm-digits`

    Args:
        out: A new folder for the run; by default runs/NAME.
    """
    from unstir.interop.published import pull as fetch_run

    made = fetch_run(name, out)
    show(*made.lines, f"sample   unstir sample {quoted(made.run.path)} --num 16")
    return 0


@app.command
def models() -> int:
    """List the models that come with unstir. Their names stand wherever a command takes a run.

    What is made of one goes to the folder ./NAME. Where a run has that name too, shipped:NAME is the model.

    Example: `unstir sample shipped:mnist --label 7`
    """
    from unstir.insight.tables import listed

    show(*listed())
    return 0
