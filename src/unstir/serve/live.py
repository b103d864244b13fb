"""A page with the network of a model in it, which draws images in the browser, without a server.

Python writes every number into the page: the weights as bfloat16, the times, the coefficients. A sampler is linear in
the noise and in the estimates of the clean image, so `as_linear` runs it on unit vectors, and what comes out are its
coefficients. JavaScript has the network (engine.js), and none of the mathematics of the schedule or of a sampler.
"""

import base64
import copy
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir import parts
from unstir.chain import Chain, facts_of
from unstir.diffusion.denoiser import Denoiser, Prediction
from unstir.diffusion.draw import starting_noise
from unstir.errors import UserError, printable, quoted
from unstir.insight.page import check_files, environment
from unstir.insight.statement import typed
from unstir.nn.unet import UNet
from unstir.randomness import stream_id
from unstir.runs.files import make_folder, write_text
from unstir.runs.model import Model
from unstir.theory.process import Process

NUM = 10  # images on the page
CHAINS = ("unipc", 12), ("ddim", 12), ("ancestral", 50)
MOST_GUIDANCE = 5.0


def write_live(model: Model, out: Path | None = None) -> Path:
    """Write the page of a model and return its path: ``out``, by default live.html in the folder of its run.

    Raises UserError for a network of the user's own, or a file that cannot be written.
    """
    path = out or model.folder / "live.html"
    check_files(path, None)
    if not isinstance(model.denoiser.net, UNet):
        alone = "is a network of your own; a live page computes the U-Net alone"
        raise UserError("live", type(model.denoiser.net).__qualname__, alone, {"live": False})
    model = rounded(model)
    shown = {
        "name": printable(model.folder.name) or "A diffusion model",
        "step": model.step,
        "labels": [printable(label) for label in model.labels.names],
        "chains": chains_of(model),
        "most": MOST_GUIDANCE if guidable(model) else None,
        "sections": [],
        "style": _text("static/serve.css"),
        "engine": _text("engine.js"),
        "page": "".join(map(_script, ("static/paint.js", "static/unstir.js", "page.js"))),
    }
    shown["data"] = json.dumps(contents(model), separators=(",", ":")).replace("<", "\\u003c")
    shown["weights"] = _weights(model)
    make_folder(path.absolute().parent)
    write_text(path, environment("unstir.insight", "unstir.serve").get_template("live.html").render(shown))
    return path


def _text(file: str) -> str:
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def _script(module: str) -> str:
    """A module as a part of one script, in which modules stand one after the other: one file has nothing to import."""
    return re.sub("^(import .*\n|export )", "", _text(module), flags=re.MULTILINE)


def rounded(model: Model) -> Model:
    """The model with the weights that its page holds, rounded to bfloat16; they are computed with in float32."""
    denoiser: Denoiser = model.denoiser
    net = copy.deepcopy(denoiser.net).to(torch.bfloat16).float()
    return replace(model, load=lambda dtype: replace(denoiser, net=net, dtype=torch.float32))


def chains_of(model: Model) -> list[Chain]:
    """The chains that the page draws by; it opens on images of the first."""
    if model.kind.has_teacher:
        return [Chain(**model.kind.chain)]
    T = model.process.T
    guidance = min(model.chain.guidance, MOST_GUIDANCE) if guidable(model) else 1.0
    chains = [Chain(sampler, min(steps, T), guidance=guidance) for sampler, steps in CHAINS]
    if not model.learned_variance:
        return chains
    # A step of a learned variance is not linear.
    return [chain.changed(variance="small") if chain.sampler == "ancestral" else chain for chain in chains]


def guidable(model: Model) -> bool:
    """Whether the page offers guidance away from the hidden condition."""
    return model.hides and not model.kind.has_teacher


def contents(model: Model) -> dict[str, Any]:
    """What engine.js and page.js read, as JSON has it; arrays are base64, images in the order [C, N, H, W]."""
    net, indices, chains = model.denoiser.net, torch.arange(NUM), chains_of(model)
    assert isinstance(net, UNet)
    condition = None if model.conditions is None else model.condition(indices)
    config = net.config
    return {
        "config": asdict(config) | {"label_beside": config.label_beside, "condition_size": config.condition_size},
        "tensors": [[name, list(tensor.shape)] for name, tensor in _tensors(net)],
        "num": NUM,
        "shape": model.shape,
        "shown": list(model.channels or range(3 if model.shape[0] == 3 else 1)),
        "classes": model.labels.names,
        "hides": guidable(model),
        "condition": None if condition is None else encoded(condition.movedim(1, 0).float()),
        "streams": {name: str(stream_id(name)) for name in ("start", "sample")},
        "chains": [_described(chain, model) for chain in chains],
        "frames": list(frames(model, chains[0])),
        "run": quoted(model.run or model.folder),
    }


def as_linear(chain: Chain, process: Process) -> dict[str, Any]:
    """A chain as sums of x_T, the estimates x_0 of its N calls and its noise, which are vectors 0, 1..N and N + 1...

    ``calls`` has t and x_t of each network call, ``end`` the last x, ``noise`` the t of each noise vector. A sum is a
    list of (vector, factor).
    """
    number, calls, noisy = chain.calls(process.schedule), list[dict[str, Any]](), list[int]()
    unit = torch.eye(2 * number + 1, dtype=torch.float64)[:, None, None, None]

    def denoise(x: Tensor, t: int | Tensor) -> Prediction:
        calls.append({"t": t, "x": _sum(x)})
        return Prediction(unit[len(calls)], unit[len(calls)])

    def noise(t: int) -> Tensor:
        noisy.append(t)
        return unit[number + len(noisy)]

    options = {name: getattr(chain, name) for name in facts_of(chain.sampler).options}
    sampler = parts.find("sampler", chain.sampler)
    *_, last = sampler(denoise, process, unit[0], chain.visited(process.schedule), noise, **options)
    return {"calls": calls, "end": _sum(last.x), "noise": noisy}


def _sum(x: Tensor) -> list[tuple[int, float]]:
    return [(place, factor) for place, factor in enumerate(x.flatten().tolist()) if factor]


def _described(chain: Chain, model: Model) -> dict[str, Any]:
    """A chain as the page has it, with c_skip and c_out of each call."""
    described, pair = as_linear(chain, model.process), model.denoiser.parameterization
    for call in described["calls"]:
        of_time = model.process.schedule.gather(call["t"], torch.empty(0))
        call |= {"skip": pair.c_skip(*of_time), "out": pair.c_out(*of_time)}
    here = {"sampler": chain.sampler, "steps": chain.steps}
    usual = model.chain.changed(**here, guidance=chain.guidance)  # of which the page shows nothing but what is here
    others = {name: value for name, value in asdict(chain).items() if name != "seed" and value != getattr(usual, name)}
    words = typed(" ".join(f"{name}={value}" for name, value in {**here, **others}.items()))
    return {"words": words, "guidance": chain.guidance, **described}


def frames(model: Model, chain: Chain) -> Iterator[dict[str, Any]]:
    """What torch draws: x_t and the estimate of the clean image made there, as pixels, from t = T to 0."""
    indices = torch.arange(NUM)
    t, x = chain.visited(model.process.schedule)[0], starting_noise(chain.seed, indices, model.shape)
    for step in model.draw(chain, indices, model.condition(indices)):
        x0 = encoded(model.pixels(step.x0).movedim(1, 0))
        yield {"t": t, "x": encoded(model.pixels(x).movedim(1, 0)), "x0": x0}
        t, x = step.t, step.x
    yield {"t": t, "x": encoded(model.pixels(x).movedim(1, 0)), "x0": x0}


def _tensors(net: UNet) -> Iterator[tuple[str, Tensor]]:
    """The weights by name; those of a transposed convolution as [out, in, 5, 5], as those of the others are."""
    for name, tensor in net.state_dict().items():
        yield name, tensor.transpose(0, 1) if name.endswith("spread.weight") else tensor


def _weights(model: Model) -> str:
    net = model.denoiser.net
    assert isinstance(net, UNet)
    flat = torch.cat([tensor.flatten() for _, tensor in _tensors(net)])
    return encoded(flat.to(torch.bfloat16).view(torch.uint8))


def encoded(values: Tensor) -> str:
    """The bytes of values, as base64."""
    return base64.b64encode(values.contiguous().numpy().tobytes()).decode()
