"""`unstir push`."""

from typing import Annotated

from cyclopts import Parameter

from unstir.cli.app import app, show
from unstir.cli.options import RunFolder, WeightOptions


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

    Example: `unstir push runs/mnist me/ddpm-mnist --licence apache-2.0`

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
