"""README.md of a folder for diffusers: where its model comes from, and how to draw with it as here."""

import unstir
from unstir.errors import printable
from unstir.interop.schedulers import DDIM_STRIDES, spacing_there
from unstir.progress import counted
from unstir.runs.model import Model, weights_in_words

HEAD = """---
library_name: diffusers
pipeline_tag: unconditional-image-generation
---

# {name}

Exported by unstir {version} from {run}, step {step}, {weights} (SHA-256 {sha256}):
images of {shape}, {T} times, the network predicts {predict}.

"""
PIPELINES = """```python
from diffusers import {pipelines}

images = DDPMPipeline.from_pretrained("{name}")(batch_size=16, num_inference_steps={T}).images
"""
DDIM = """images = DDIMPipeline.from_pretrained("{name}")(batch_size=16, num_inference_steps={few}{clipped}).images
"""
CLASSES = """The network is told a class, which the pipelines of diffusers cannot pass on, so the loop is written out:

```python
import torch
from diffusers import DDPMPipeline

pipe = DDPMPipeline.from_pretrained("{name}")
label = torch.tensor({labels})  # {names}
x = torch.randn(len(label), {shape})
pipe.scheduler.set_timesteps({T})
for t in pipe.scheduler.timesteps:
    with torch.no_grad():
        output = pipe.unet(x, t, class_labels=label).sample
{guidance}    x = pipe.scheduler.step(output, t, x).prev_sample
images = (x / 2 + 0.5).clamp(0, 1)
```
"""
GUIDANCE = """        without = pipe.unet(x, t, class_labels=torch.full_like(label, {null})).sample  # {null}: no class
    output = without + 2.0 * (output - without)  # guidance of scale 2
"""
GUIDANCE_LEARNED = """        without = pipe.unet(x, t, class_labels=torch.full_like(label, {null})).sample
    (told, variance), (untold, _) = output.chunk(2, 1), without.chunk(2, 1)  # {null}, above: no class
    output = torch.cat((untold + 2.0 * (told - untold), variance), 1)  # guidance of scale 2, not of the variance
"""


def text(model: Model, name: str) -> str:
    """The README of a model in a folder of this name."""
    head = HEAD.format(
        name=printable(name),
        version=unstir.__version__,
        run=printable(model.folder.name or model.folder),
        step=model.step,
        weights=weights_in_words(model.averaged),
        sha256=model.weights_sha256,
        shape="x".join(map(str, model.shape)),
        T=model.process.T,
        predict=model.predict,
    )
    return head + usage(model, name)


def usage(model: Model, name: str) -> str:
    """How to draw with diffusers from the folder or the repository of this name."""
    count, T = model.labels.count, model.process.T
    if not count:
        how = PIPELINES + ("" if model.learned_variance else DDIM) + "```\n"
        clipped = ", use_clipped_model_output=True" if model.chain.clip else ""
        pipelines = "DDPMPipeline" if model.learned_variance else "DDIMPipeline, DDPMPipeline"
        shown = {"name": printable(name), "T": T, "few": min(50, T), "clipped": clipped, "pipelines": pipelines}
        return how.format(**shown) + _notes(model)
    labels = range(min(count, 4))
    names = ", ".join(f"{i} is {printable(model.labels.names[i])}" for i in range(count))
    how = CLASSES.format(
        name=printable(name),
        T=T,
        labels=list(labels),
        names=names,
        shape=", ".join(map(str, model.shape)),
        guidance=(GUIDANCE_LEARNED if model.learned_variance else GUIDANCE).format(null=count)
        if model.labels.has_null
        else "",
    )
    return how + _notes(model)


def notes(model: Model) -> tuple[str, ...]:
    """What a person should know who draws with an exported model."""
    said = []
    if model.labels.count:
        said.append("the pipelines of diffusers cannot pass a class on: README.md has the loop")
    if model.learned_variance:
        said.append("DDIMScheduler takes no learned variance: draw by DDPMPipeline")
        if model.chain.variance in ("small", "large"):
            said.append(f"grids.variance={model.chain.variance} is not carried over: DDPMPipeline adds the learned one")
    elif model.chain.clip:
        said.append("DDIM draws as here with use_clipped_model_output=True: eps then follows the clamped image")
    if not model.learned_variance and (spacing := spacing_there(model.chain)) != "leading":
        T = model.process.T
        alike = (
            f"a number of steps that divides {T}" if spacing == "trailing" else f"{counted(T, 'step')}, with linspace"
        )
        said.append(f"{DDIM_STRIDES}. Its pictures are those of here in {alike}")
    if model.process.T != DEFAULT_STEPS:
        said.append(
            f"num_inference_steps={model.process.T} is the whole chain; the default of DDPMPipeline is {DEFAULT_STEPS}"
        )
    if model.chain.guidance != 1:
        said.append("guidance is not stored: it is a part of the loop")
    return tuple(said)


DEFAULT_STEPS = 1000  # of DDPMPipeline


def _notes(model: Model) -> str:
    return "".join(f"\n- {each}" for each in notes(model)) + "\n"
