"""Parts of a run, found by name: schedules, samplers, networks, sources of images and more, ours and other people's.

A part is a function or a class below the decorator of its kind. In mine.py, one called ``straight`` is "mine:straight"
to the settings of a run; what it takes besides the arguments of its kind are its options, each with a default. Parts of
the package have plain names, such as "linear", and their modules are loaded when they are needed.

A run may come from a stranger, and importing runs code. What a run names is therefore loaded only where the user has
said so, by typing the name, by a TOML file of their own, by the environment variable UNSTIR_PARTS (modules, separated
by commas), or by importing the module themselves.
"""

import importlib
import inspect
import json
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, overload

from pydantic import AfterValidator, BeforeValidator

from unstir.errors import NotFiniteError, UserError, is_out_of_memory, missing, nearest

VARIABLE = "UNSTIR_PARTS"
Part = TypeVar("Part", bound=Callable[..., Any])

ARGUMENTS = {
    "schedule": ("T",),
    **dict.fromkeys(("weighting", "times"), ("schedule",)),
    "loss": ("denoiser", "x_0", "t", "eps"),
    "sampler": ("denoise", "process", "x_T", "times", "noise"),
    "condition": ("images",),
    "network": ("in_channels", "out_channels", "num_labels"),
    "source": (),
    "features": (),
    "tracker": ("folder",),
}
"""Each kind of part, with the arguments that it is called with."""
ALSO = {"weighting": ("parameterization",), "loss": ("present",), "features": ("device",)}
"""What a part is given besides, by name, where it takes it."""
WORDS = {"condition": ("stored",), "loss": ("simple", "hybrid", "vlb", "paths")}
"""What a setting that names a part of a kind may be besides: words with a meaning of their own."""

OURS: dict[str, dict[str, str]] = {
    "schedule": dict.fromkeys(("linear", "cosine", "sigmoid", "table"), "theory.schedule"),
    "weighting": dict.fromkeys(("simple", "min_snr", "truncated_snr", "p2"), "theory.weighting"),
    "times": dict.fromkeys(("uniform", "importance", "laplace", "normal"), "diffusion.loss"),
    "loss": {},
    "sampler": {
        **{name: f"diffusion.samplers.{name}" for name in ("ancestral", "ddim", "unipc", "heun", "ipndm", "pndm")},
        **dict.fromkeys(("dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde"), "diffusion.samplers.dpmpp"),
    },
    "condition": dict.fromkeys(("low_resolution", "masked"), "runs.conditions"),
    "network": {"unet": "nn.unet"},
    "source": {"mnist": "data.embedded", "digits": "data.embedded", "cifar10": "data.cifar10"},
    "features": {"inception": "metrics.inception"},
    "tracker": {"tensorboard": "trackers.tensorboard", "wandb": "trackers.wandb"},
}
"""The parts of the package by kind and name, with the module of each: `find` loads it."""

_KNOWN: dict[tuple[str, str], tuple[Callable[..., Any], Mapping[str, Any]]] = {}
_allowed: set[str] = set()


def schedule(function: Part) -> Part:
    """Register (T, **options) -> NoiseSchedule, whose table has T + 1 entries, as diffusion.schedule."""
    return _registered("schedule", function)


def weighting(function: Part) -> Part:
    """Register (schedule, **options) -> float64 [T+1] as loss.weighting; the entry of t = 0 is not used.

    The numbers weigh the squared error of the network's output, whatever it predicts. A function that takes
    ``parameterization`` too is told what that is; `theory.weighting.of_output` turns weights of the image's error into
    these.
    """
    return _registered("weighting", function)


def times(function: Part) -> Part:
    """Register (schedule, **options) -> p, float64 [T], the probability of each time 1..T in training, as loss.times.

    The loss is not divided by these, so that a time drawn more often counts for more.
    """
    return _registered("times", function)


def loss(function: Part) -> Part:
    """Register (denoiser, x_0, t, eps, **options) -> float32 [B], the loss of each image, as loss.objective.

    ``denoiser(x_t, t)`` is a `Conditioned`, ``x_0`` images [B, C, H, W] in [-1, 1], ``t`` int64 [B] in 1..T, ``eps``
    noise like x_0. ``present``, where it is taken, says which values of x_0 are known: bool like x_0, None for all.
    """
    return _registered("loss", function)


@overload
def sampler(part: Part) -> Part: ...
@overload
def sampler(
    *, calls: int = 1, start: tuple[int, ...] = (), divides_by_alpha: bool = False
) -> Callable[[Part], Part]: ...
def sampler(part: Any = None, *, calls: int = 1, start: tuple[int, ...] = (), divides_by_alpha: bool = False) -> Any:
    """Register a generator of `Step`, (denoise, process, x_T, times, noise, **options), as a sampler.

    ``denoise(x, t)`` returns a `Prediction`, ``times`` fall strictly to the end of the chain, 0 or above (`Chain`), and
    ``noise(t)`` is fresh standard normal noise like ``x_T`` [B, C, H, W], the same whenever t is. The last step is at
    ``times[-1]``; at 0 its x is the image. With facts, as in ``@sampler(calls=2)``: a step takes ``calls`` network
    calls, the first ones those of ``start``, the step to 0 one. ``divides_by_alpha`` is true of one that cannot begin
    where alpha_t = 0.
    """
    facts = {"calls": calls, "start": start, "divides_by_alpha": divides_by_alpha}
    return _registered("sampler", part, facts) if part else lambda part: _registered("sampler", part, facts)


def condition(function: Part) -> Part:
    """Register (images, **options) -> float [B, K] or [B, C', H, W] as data.condition.

    ``images`` are float [B, C, H, W] in [-1, 1]. An image of its answer is scaled as they are; a vector in any units is
    scaled by its mean and deviation over the training images.
    """
    return _registered("condition", function)


def network(cls: Part) -> Part:
    """Register a class of `torch.nn.Module`, (in_channels, out_channels, num_labels, **options), as model.type.

    Its ``forward(x, t, condition=None)`` takes float [B, C, H, W], int64 [B] in 0..T-1, and classes, int64 [B] below
    num_labels, vectors, float [B, num_labels], or images, float [B, num_labels, H, W] (`UNet.forward`). It returns
    float [B, out_channels, H, W]. It may also take ``dropout_key`` and ``augmentation``, as `UNet.forward` does.
    """
    return _registered("network", cls)


def source(function: Part) -> Part:
    """Register (**options) -> images, or (images, labels), or anything in memory that `pack` takes, as data.source.

    It may also return a class of `data.source.Source`, which is made of the `Options` of the packing.
    """
    return _registered("source", function)


def features(function: Part) -> Part:
    """Register (**options) -> a function of images as the store has them, [B, C, H, W], to features, float [B, F].

    A function that takes ``device`` too is told the name of the device; what it returns may be a `Network`.
    """
    return _registered("features", function)


def tracker(cls: Part) -> Part:
    """Register a class of `Observer`, made of (folder, **options), the folder of a run, as one of log.to."""
    return _registered("tracker", cls)


def _registered(kind: str, part: Part, facts: Mapping[str, Any] | None = None) -> Part:
    """The part as it is, known by its name. UserError where it cannot be called as its kind is."""
    try:
        taken = inspect.signature(part).parameters
        inspect.signature(part).bind(*ARGUMENTS[kind], **{key: "" for key in ALSO.get(kind, ()) if key in taken})
    except TypeError:
        call = ", ".join((*ARGUMENTS[kind], "**options"))
        every = "give every other argument a default"
        raise UserError("", f"the {kind} {part.__name__}", f"cannot be called as ({call})", every) from None
    module = part.__module__
    if module == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        module = Path(file).stem  # as others would import it
    name = part.__name__.lower() if module.startswith("unstir.") else f"{module}:{part.__name__}"
    _KNOWN[kind, name] = part, facts or {}
    return part


def is_own(name: str) -> bool:
    """Whether a name is MODULE:NAME, of a part that is not the package's."""
    return bool(_OWN.fullmatch(name))


_OWN = re.compile(r"(?!hf:)\w[\w.-]*:[A-Za-z_]\w*")  # hf:NAME is a data set of the Hub


def short_name(name: str) -> str:
    """The NAME of MODULE:NAME, or the name of one of ours."""
    return name.rpartition(":")[2]


def options_of(name: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The options of one among several parts: those of its short name and of its whole one, which count more."""
    return {**tables.get(short_name(name), {}), **tables.get(name, {})}


def names_of(parts: Iterable[str]) -> set[str]:
    """Every name that a table of options of several ``parts`` can have."""
    return {name for part in parts for name in (part, short_name(part))}


def allow(name: str) -> None:
    """Let the module of MODULE:NAME be loaded when it is needed, for the user has named it."""
    if is_own(name):
        _allowed.add(name.partition(":")[0])


def find(kind: str, name: str) -> Callable[..., Any]:
    """The part of a name. Raises UserError where the user has not named its module, or that has no such part."""
    if (kind, name) not in _KNOWN:
        if module := OURS[kind].get(name):
            importlib.import_module(f"unstir.{module}")
        else:
            _load(kind, name)
    return _KNOWN[kind, name][0]


def name_of(kind: str, part: object) -> str:
    """The name of a part that is registered; UserError for another."""
    for (its_kind, name), (known, _) in _KNOWN.items():
        if its_kind == kind and known is part:
            return name
    called = getattr(part, "__name__", part)
    raise UserError("", f"the {kind} {called}", "has no name in a run", f"put @unstir.{kind} above it")


def facts(kind: str, name: str) -> Mapping[str, Any]:
    """What the decorator of a part was told of it; errors as `find`."""
    find(kind, name)
    return _KNOWN[kind, name][1]


def _load(kind: str, name: str) -> None:
    module = name.partition(":")[0]
    if _imported_elsewhere(kind, name):
        return
    if module not in _allowed | {item.strip() for item in os.environ.get(VARIABLE, "").split(",")}:
        trust = f"where you trust {module}, type {VARIABLE}={module} before the command, or import it first"
        raise UserError("", f"the {kind} {name}", "is code of its own, which a run does not hold", trust)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that no file there stands for an installed module
    try:
        importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:
        mend = f"mend it there, or type the command in the folder of {module}.py"
        raise UserError("", f"the module {module}", f"cannot be loaded: {said(error)}", mend) from None
    if (kind, name) not in _KNOWN and not _imported_elsewhere(kind, name):
        raise UserError("", f"the module {module}", f"has no {kind} {short_name(name)}", f"put @unstir.{kind} above it")


def _imported_elsewhere(kind: str, name: str) -> bool:
    """Whether a module that is loaded has under this name a part of another one; it is known by both names then."""
    part = getattr(sys.modules.get(name.partition(":")[0]), short_name(name), None)
    known = next((known for (of, _), known in _KNOWN.items() if of == kind and known[0] is part), None)
    return known is not None and _KNOWN.setdefault((kind, name), known) is known


def make(kind: str, name: str, *arguments: Any, options: Mapping[str, Any], section: str = "", **also: Any) -> Any:
    """What a part returns for its arguments and options, and for what it takes of ``also`` (`ALSO`).

    Raises UserError as `find` and `check_options`, and where it fails; ``section`` is where the options were given.
    """
    check_options(kind, name, options, section)
    part = find(kind, name)
    also = {key: value for key, value in also.items() if key in inspect.signature(part).parameters}
    with guarded(kind, name, section):
        return part(*arguments, **also, **options)


def check_options(
    kind: str, name: str, options: Mapping[str, Any], section: str = "", others: tuple[str, ...] = ()
) -> None:
    """Raise UserError for an option that a part lacks, or whose value is not of its type; errors as `find`.

    What is among the ``others`` is no option, but an argument with a setting of its own.
    """
    taken = list(_parameters(find(kind, name)).items())[len(ARGUMENTS[kind]) :]
    parameters = {key: item for key, item in taken if key not in (*others, *ALSO.get(kind, ()))}
    if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values()):
        return
    for key, value in options.items():
        if key not in parameters:
            takes = f"{name} takes {', '.join(parameters)}" if parameters else f"{name} takes none"
            near = nearest(key, parameters)
            error = UserError(key, value, f"is no option: {takes}", f"did you mean {near}?" if near else ())
            raise error.within(section)
        types, allowed = _TYPES.get(parameters[key].annotation, ((object,), ""))
        if not isinstance(value, types) or (isinstance(value, bool) and types in (_NUMBER, _WHOLE)):
            raise UserError(key, value, f"must be {allowed}").within(section)


def _parameters(part: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a part takes, by name; its annotations as types, also where they are written as text."""
    try:
        return inspect.signature(part, eval_str=True).parameters
    except NameError:  # of a name that only a type checker imports
        return inspect.signature(part).parameters


_NUMBER, _WHOLE = (float, int), (int,)
_TYPES: dict[Any, tuple[tuple[type, ...], str]] = {
    float: (_NUMBER, "a number"), int: (_WHOLE, "a whole number"),
    bool: ((bool,), "true or false"), str: ((str,), "text"),
}  # fmt: skip


@contextmanager
def guarded(kind: str, name: str, section: str = "") -> Iterator[None]:
    """In this block what the code of a part raises is a UserError in one line, its options those of ``section``."""
    try:
        yield
    except UserError as error:
        raise (error.within(section) if error.key and section else error) from None
    except Exception as error:
        if not is_own(name) or isinstance(error, NotFiniteError) or is_out_of_memory(error):
            raise
        raise UserError("", f"the {kind} {name}", f"fails: {said(error)}") from None


def said(error: Exception) -> str:
    """An exception of the user's own code in one line: its kind, its message, and the last line of theirs that ran."""
    others = str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<frozen"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    theirs = [frame for frame in frames if "site-packages" not in frame.filename]
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({Path(error.filename).name}, line {error.lineno})"
    else:
        where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())[:300]
    return f"{type(error).__name__}{': ' * bool(text)}{text}{where}"


@dataclass(frozen=True)
class Name:
    """Checks a setting that names a part of a ``kind``: one of ours, or MODULE:NAME, which is not looked for yet."""

    kind: str
    may_be_empty: bool = False

    def __call__(self, name: str) -> str:
        """The name; UserError for one that can be of no part."""
        ours = *WORDS.get(self.kind, ()), *OURS[self.kind]
        if name in ours or is_own(name) or (self.may_be_empty and not name):
            return name
        near = nearest(name, ours)
        one_of = f"must be one of {', '.join(ours)}, or MODULE:NAME"
        raise UserError("", name, one_of, f"did you mean {near}?" if near else ())


def kind_of(hint: Any) -> str:
    """The kind of part that a setting with this type names; "" where it names none."""
    checks = (getattr(item, "func", None) for item in getattr(hint, "__metadata__", ()))
    kinds = [check.kind for check in checks if isinstance(check, Name)]
    return next(filter(None, (*kinds, *map(kind_of, get_args(hint)))), "")


NetworkName = Annotated[str, AfterValidator(Name("network"))]
ConditionName = Annotated[str, AfterValidator(Name("condition", may_be_empty=True))]
ScheduleName = Annotated[str, AfterValidator(Name("schedule"))]
WeightingName = Annotated[str, AfterValidator(Name("weighting"))]
TimesName = Annotated[str, AfterValidator(Name("times"))]
LossName = Annotated[str, AfterValidator(Name("loss"))]
SamplerName = Annotated[str, AfterValidator(Name("sampler"))]
FeaturesName = Annotated[str, AfterValidator(Name("features"))]
TrackerName = Annotated[str, AfterValidator(Name("tracker"))]


def _option(value: object) -> object:
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError("must be text, true, false or a finite number")


Option = Annotated[str | bool | int | float, BeforeValidator(_option)]


def read(kind: str, name: str, key: str, text: str) -> Any:
    """A word as the option ``key`` of a part: text by its annotation, else a number, true, false or text."""
    with suppress(UserError):
        if (taken := _parameters(find(kind, name)).get(key)) and taken.annotation is str:
            return text
    with suppress(ValueError):  # such as 007
        return json.loads(re.sub(r"(?<![0-9])\.", "0.", text)) if _WORD.fullmatch(text) else text
    return text


_WORD = re.compile(r"true|false|-?([0-9]{1,15}(\.[0-9]+)?|\.[0-9]+)(e[+-]?[0-9]{1,2})?")


def library(name: str, extra: str, what: str) -> Any:
    """The module ``name`` of an ``extra`` of this package; UserError, naming ``what`` needs it, where it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            raise missing(name, extra, what) from None
