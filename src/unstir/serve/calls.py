"""The calls that pages make, in one table: POST api/NAME with JSON is answered by the handler of this name.

A handler takes the `State` and its values, whose class its signature names, and calls typed functions of the library.
One that returns answers at once and does not compute. One that yields computes when its turn comes; each line is sent
as soon as it is there, and a client that goes away ends it at the next.
"""

from collections.abc import Callable
from inspect import isgeneratorfunction
from typing import Any, get_type_hints

from unstir.chain import SAMPLERS
from unstir.errors import printable
from unstir.serve.chapters import conditions, forward, guidance, images, opening, own, predict, reverse
from unstir.serve.editing import drawn, inpaint, paste, preview, vary
from unstir.serve.exercises import check
from unstir.serve.sampling import compare, sample
from unstir.serve.state import Answer, Frames, State, Values
from unstir.serve.training import report, snapshot, training

Handler = Callable[[State, Any], Answer | Frames]
COMPARED = ["ancestral", "ddim", "dpmpp_2m", "unipc"]  # chosen at first, where a model takes them


def models(state: State, values: Values) -> Answer:
    """The id and the name of each model."""
    return {"models": [{"id": id, "name": name} for id, name in state.runs().items()]}


def model(state: State, values: Values) -> Answer:
    """What a page offers for a model: its images, classes, samplers, and the chains that it begins with."""
    model, run = state.model(values.model), state.run(values.model)
    T, usual = model.process.T, model.kind.usual(model.chain, model.process.T)
    return {
        "step": model.step,
        "steps": run.saved_steps(),
        "T": T,
        "shape": model.shape,
        "labels": [printable(name) for name in model.labels.names] or [*map(str, range(model.labels.count))],
        "condition": "" if model.conditions is None else "image" if model.conditions.is_image else "numbers",
        "guidable": model.hides and not model.kind.has_teacher,
        "samplers": [name for name in SAMPLERS if model.takes(sampler=name)],
        "chain": {"sampler": usual.sampler, "steps": usual.steps, "guidance": model.chain.guidance},
        "compared": COMPARED,
        "strides": [(-(-T // 10), "a tenth of the times"), (1, "one time"), (T, "all times, to the image")],
    }


CALLS: dict[str, Handler] = {
    "models": models,
    "model": model,
    "sample": sample,
    "compare": compare,
    "training": training,
    "snapshot": snapshot,
    "report": report,
    "drawn": drawn,
    "preview": preview,
    "inpaint": inpaint,
    "vary": vary,
    "paste": paste,
    "opening": opening,
    "images": images,
    "conditions": conditions,
    "own": own,
    "forward": forward,
    "predict": predict,
    "reverse": reverse,
    "guidance": guidance,
    "check": check,
}


def values_of(handler: Handler) -> type[Values]:
    """The class of the values that a handler takes."""
    kind: type[Values] = get_type_hints(handler)["values"]
    return kind


def computes(handler: Handler) -> bool:
    """Whether a handler computes, line by line."""
    return isgeneratorfunction(handler)
