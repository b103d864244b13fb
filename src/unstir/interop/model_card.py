"""README.md of a model, on the Hugging Face Hub or in a folder for diffusers, by huggingface_hub and card.md."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import unstir
from unstir.chain import DEFAULTS, Chain, title
from unstir.errors import printable, short
from unstir.insight import tables
from unstir.interop.diffusers_folder import KEPT
from unstir.interop.diffusers_settings import DDIM_STRIDES, spacing_there
from unstir.metrics.evaluation import Evaluation, protocol_in_words
from unstir.metrics.figures import in_rows
from unstir.parts import library
from unstir.progress import counted
from unstir.runs.config import Config
from unstir.runs.model import Model, weights_in_words
from unstir.significance import with_error

_TASK = "unconditional-image-generation"
SHOWN = 16  # samples of the page
_DEFAULT_STEPS = 1000  # of DDPMPipeline
_OF_DATA = {
    "mnist": "10,000 images of MNIST (LeCun, Cortes & Burges 1998), CC BY-SA 3.0",
    "digits": "UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0",
    "cifar10": "CIFAR-10 (Krizhevsky 2009), published without a licence",
}
"""What is known of the data sets that are known by name."""


@dataclass(frozen=True)
class Page:
    """What the page on the Hub says beside the model; ``without_diffusers``: why it holds no files for diffusers."""

    config: Config
    figures: Sequence[Evaluation] = ()
    licence: str = ""
    data_licence: str = ""
    without_diffusers: str = ""


def card(model: Model, name: str, page: Page | None = None) -> str:
    """The text of README.md of a model called ``name``: a folder for diffusers, or OWNER/NAME with its ``page``."""
    hub, own = library("huggingface_hub", "hub", "README.md of a model"), printable(name.rpartition("/")[2])
    results = _results(hub, page) if page else []
    metadata = hub.ModelCardData(
        license=(page and page.licence) or None,
        library_name="unstir" if page and page.without_diffusers else "diffusers",
        pipeline_tag=_TASK,
        tags=["unstir", "ddpm", "diffusion"],
        model_name=own if results else None,
        eval_results=results or None,
    )
    values = _of_model(model) | (_of_page(model, page) if page else {})
    template = str(Path(__file__).with_name("card.md"))
    filled = hub.ModelCard.from_template(
        metadata, template_path=template, model=model, name=printable(name), own=own, page=page, **values
    )
    return f"{filled}\n"


def _results(hub: Any, page: Page) -> list[Any]:
    source = page.config.data.source or "unknown"
    return [
        hub.EvalResult(
            task_type=_TASK,
            dataset_type=re.sub(r"[^\w.-]+", "-", source),  # the Hub takes a name without spaces
            dataset_name=source,
            dataset_split=item.protocol["split"],
            metric_type=figure.name,
            metric_value=with_error(figure.value, figure.error),
            metric_args={"protocol": f"evaluation/{item.name()}.json"},
        )
        for item in page.figures
        for figure in item.figures.values()
    ]


def _of_model(model: Model) -> dict[str, Any]:
    count = model.labels.count
    return {
        "version": unstir.__version__,
        "made": "trained" if model.kind.trained_here else "imported",
        "parameters": f"{sum(t.numel() for t in model.denoiser.net.parameters()):,}",
        "weights": weights_in_words(model.averaged),
        "names": ", ".join(f"{i} is {printable(model.labels.names[i])}" for i in range(count)),
        "output": "" if model.in_pixels else ', output_type="np"',
        "notes": notes(model),
    }


def _of_page(model: Model, page: Page) -> dict[str, Any]:
    config, counts = page.config, model.data.counts
    images = f"{counts['train']:,} for training, {counts['held_out']:,} held out"
    return {
        "shown": SHOWN,
        "recipe": f" from the recipe {printable(config.recipe)}" if config.recipe else "",
        "chain": _in_words(shown_chain(model)),
        "known": _OF_DATA.get(config.data.source),
        "images": images if counts["train"] else "not known",
        "modules": config.modules,
        "rows": lambda item: [map(_plain, row) for row in in_rows(item.figures.values(), item.protocol["num"])],
        "protocol": protocol_in_words,
        "plain": _plain,
    }


def shown_chain(model: Model) -> Chain:
    """What the samples of the page are drawn by, with seed 0."""
    return replace(model.kind.usual(model.chain, model.process.T), seed=0)


def _in_words(chain: Chain) -> str:
    """All that decides what the chain draws beside the seed: what is not said has its default."""
    names = "guidance", "guidance_low", "guidance_high", "threshold", "clip"
    unusual = [f"{name}={short(value)}" for name in names if (value := getattr(chain, name)) != DEFAULTS[name]]
    drawn = f"{title(chain.in_effect())} in {counted(chain.steps, 'step')}"
    return f"{drawn} with {', '.join(unusual)}" if unusual else drawn


def notes(model: Model) -> tuple[str, ...]:
    """What a person should know who draws with an exported model."""
    says, T = list[str](), model.process.T
    if model.labels.count:
        says.append("the pipelines of diffusers cannot pass a class on: README.md has the loop")
    if model.learned_variance:
        says.append("DDIMScheduler takes no learned variance: draw by DDPMPipeline")
        if model.chain.variance in ("small", "large"):
            says.append(f"grids.variance={model.chain.variance} is not carried over: DDPMPipeline adds the learned one")
    elif model.chain.clip:
        says.append("DDIM draws as here with use_clipped_model_output=True: eps then follows the clamped image")
    if not model.learned_variance and (spacing := spacing_there(model.chain)) != "leading":
        alike = f"a number of steps that divides {T}" if spacing == "trailing" else f"{T} steps, with linspace"
        says.append(f"{DDIM_STRIDES}. Its pictures are those of here in {alike}")
    if not model.learned_variance and model.chain.variance == "auto":
        says.append('DDPMPipeline adds the large variance, for all T steps; for fewer set variance_type="fixed_small"')
    if model.data.scale.is_float:
        says.append(f'pipelines draw v in 0..1 (output_type="np"): in units low + v (high - low), of scale in {KEPT}')
    if T != _DEFAULT_STEPS:
        says.append(f"num_inference_steps={T} is the whole chain; DDPMPipeline's is {_DEFAULT_STEPS}")
    if model.chain.guidance != 1:
        says.append("guidance is not stored: it is a part of the loop")
    return tuple(says)


def _plain(text: str) -> str:
    return tables.as_markdown(printable(text))
