"""The page of a model on the Hugging Face Hub: README.md of its repository, with all that its figures rest on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import unstir
from unstir.chain import DEFAULTS, FAST, Chain, title
from unstir.errors import printable
from unstir.interop import readme
from unstir.metrics.evaluation import Evaluation
from unstir.progress import counted
from unstir.report import tables
from unstir.runs.config import Config
from unstir.runs.model import Model, weights_in_words

OF_DATA = {
    "mnist": "10,000 images of MNIST (LeCun, Cortes & Burges 1998), CC BY-SA 3.0",
    "digits": "UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0",
    "cifar10": "CIFAR-10 (Krizhevsky 2009), published without a licence",
}
"""What is known of the data sets that are known by name."""

_HEAD = """# {title}

![the first {count} samples of seed 0, not chosen](samples.png)

A denoising diffusion model of {shape} images, {made} with unstir {version}{recipe}: {parameters} parameters,
T = {T}, the network predicts {predict}. These are the {weights} of step {step} (SHA-256 `{sha256}`).
The samples are the first ones of seed 0 by {chain}, and not chosen.
"""
_USE = """## Use

unstir is installed from the folder of its source.{module}

```sh
pip install '.[hub]'
unstir pull {name} --out runs/{own}
unstir sample runs/{own} --num 16
```

```python
from unstir import Job, Run, sample_batches

model = Run.open("runs/{own}").model()
for indices, images in sample_batches(model, Job(num=16, chain=model.chain)):
    print(images.shape)  # [b, C, H, W] in about [-1, 1]
```
"""

_OWN = """ The network is one of the author's own: its code, the module `{module}`,
is not in this repository and is needed too, with `UNSTIR_NETWORKS={module}` in the environment."""


@dataclass(frozen=True)
class Licences:
    """The licence of the model as the Hub names it ("apache-2.0"), and that of the data in words; "" is not stated."""

    model: str = ""
    data: str = ""


def card(
    model: Model,
    config: Config,
    name: str,
    figures: Sequence[Evaluation],
    licences: Licences,
    without_diffusers: str = "",
) -> str:
    """The text of README.md; ``without_diffusers`` says why the repository holds no files for diffusers, if so."""
    own = name.split("/")[1]
    head = _HEAD.format(
        title=own,
        count=16,
        shape="x".join(map(str, model.shape)),
        made="trained" if _is_trained(model) else "imported into and published",
        version=unstir.__version__,
        recipe=f" from the recipe {printable(config.recipe)}" if config.recipe else "",
        parameters=f"{sum(t.numel() for t in model.denoiser.net.parameters()):,}",
        T=model.process.T,
        predict=model.predict,
        weights=weights_in_words(model.averaged),
        step=model.step,
        sha256=model.weights_sha256,
        chain=_in_words(shown_chain(model)),
    )
    came = f"\nThe weights were imported from {_plain(config.imported)}.\n" if config.imported else ""
    module = config.model.type.partition(":")[0] if ":" in config.model.type else ""
    parts = [
        _front(licences, not without_diffusers),
        head + came,
        "## Figures\n\n" + ("\n".join(map(_figures, figures)) or "This step was not evaluated.\n"),
        f"## Data\n\n{_data(model, config, licences)}\n",
        f"## Licence of the model\n\n{_plain(licences.model or 'Not stated.')}\n",
        _USE.format(name=name, own=own, module=_OWN.format(module=module) if module else ""),
        f"### diffusers\n\n{_plain(without_diffusers) + '.' if without_diffusers else readme.usage(model, name)}",
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def shown_chain(model: Model) -> Chain:
    """What the samples of the page are drawn by, with seed 0: the usual fast sampler, or that of a distilled run."""
    chain = model.chain if model.distilled else model.chain.changed(
        sampler=FAST.sampler, steps=min(FAST.steps, model.process.T), spacing=FAST.spacing
    )  # fmt: skip
    return replace(chain, seed=0)


def _in_words(chain: Chain) -> str:
    """All that decides what the chain draws, but for the seed: what is not said has its default."""
    said = [] if chain.guidance == 1 else [f"guidance {chain.guidance:g}"]
    if (chain.guidance_low, chain.guidance_high) != (DEFAULTS["guidance_low"], DEFAULTS["guidance_high"]):
        said[-1] += f" at the times {chain.guidance_low} to {chain.guidance_high or 'T'}"
    said += [f"threshold {chain.threshold:g}"] if chain.threshold else []
    said += [] if chain.clip else ["no clamp"]
    return f"{title(chain.in_effect())} in {counted(chain.steps, 'step')}{' with ' * bool(said)}{' and '.join(said)}"


def _is_trained(model: Model) -> bool:
    """Whether its training is known; not of one that came from another program, with no word of its data."""
    return model.data.counts["train"] > 0


def _data(model: Model, config: Config, licences: Licences) -> str:
    """What is known of the data, as a list."""
    counts = model.data.counts
    images = f"{counts['train']:,} for training, {counts['held_out']:,} held out" if _is_trained(model) else "not known"
    known = OF_DATA.get(config.data.source)
    return "\n".join(
        [
            f"- source: {_plain(known or config.data.source or 'not known')}",
            f"- licence: {_plain(licences.data or ('see above' if known else 'not stated'))}",
            f"- images: {images}",
            f"- classes: {_plain(', '.join(model.data.classes) or 'none')}",
            f"- content hash: `{model.data.content_hash or 'not known'}`",
        ]
    )


def _front(licences: Licences, diffusers: bool) -> str:
    """The metadata that the Hub reads, as YAML, which takes quoted JSON for text."""
    lines = [f"license: {json.dumps(licences.model)}"] if licences.model else []
    lines += [f"library_name: {'diffusers' if diffusers else 'unstir'}", "pipeline_tag: unconditional-image-generation"]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in ("unstir", "ddpm", "diffusion")), "---", ""])


def _figures(evaluation: Evaluation) -> str:
    """The figures of an evaluation as a table, and below it how they were made."""
    how = evaluation.protocol
    rows = [("figure", "value", "real images", "noise", "better"), ("---", "---:", "---:", "---:", "---")]
    rows += tables.figures(evaluation.figures.values(), how["num"])
    lines = [
        f"| {' | '.join(map(_plain, row)) if number != 1 else ' | '.join(row)} |" for number, row in enumerate(rows)
    ]
    copies = evaluation.memorisation
    searched = "" if copies is None else f"\nCopies of training images: {_plain(copies.says.splitlines()[0])}.\n"
    full = (
        f"[evaluation/{evaluation.name()}.json](evaluation/{evaluation.name()}.json) has every number and the protocol"
    )
    made = f"{tables.protocol(evaluation)}. {full}, without which none of them compares; ± is one standard error."
    return "\n".join(lines) + f"\n\n{made}\n{searched}"


def _plain(text: str) -> str:
    """A text on one line in which nothing is markup."""
    return tables.as_markdown(printable(text))
