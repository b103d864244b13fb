"""The likelihood of a run's data under its model: the variational bound in bits per dimension, whole and by time."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from unstir import randomness
from unstir.data import Store
from unstir.diffusion.denoiser import clipped, finite
from unstir.diffusion.likelihood import Bound, strata, variational_bound
from unstir.errors import UserError, within_memory
from unstir.pictures.charts import likelihood_curves, save_figure
from unstir.pixels import known
from unstir.progress import counted, counter, counting
from unstir.randomness import Key
from unstir.runs.conditions import STORED
from unstir.runs.files import check as check_kinds
from unstir.runs.files import check_writable, decode, encode, is_count, is_text, make_folder, replacing, write_text
from unstir.runs.model import Model, weights_in_words
from unstir.runs.stores import check_data
from unstir.theory.parameterization import check_variance
from unstir.train.held_out import with_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 8  # batches of an estimate, each with times of its own, where there are as many images


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the bound is computed, all of which is part of the result.

    ``num`` images of a split ("train" or "held_out"), chosen by ``seed``; 0 takes all. ``calls`` network calls per
    image: 0 sums every term, fewer estimate the sum without bias from times drawn anew for each batch. ``variance`` is
    "auto" (learned where it was, else large), "small", "large", "learned" or "optimal"; ``clip`` clamps each x_0_hat to
    [-1, 1].
    """

    split: str = "held_out"
    num: int = 0
    calls: int = 0
    variance: str = "auto"
    clip: bool = True
    seed: int = 0
    batch_size: int = 64


@dataclass(frozen=True)
class Likelihood:
    """The bound of a set of images, in bits per dimension; ``standard_error`` is None where there is one sample alone.

    ``num_samples`` are the independent samples that the error is from: images, or batches of them under an estimate.
    ``prior``, ``decoder`` and ``curve`` (L_{t-1} of each of ``times``, rising) are means over the images. Under an
    estimate the curve holds the terms that were drawn, which do not add up to the sum; ``total``, the decoder's and all
    terms up to each of ``times``, is estimated as the sum is. A network with conditions is given the image's own.
    The ``protocol`` has the SHA-256 of the weights, and the id of their run. Of data of
    floating point the bits are those of a density of values scaled to [-1, 1], over the values that are there;
    ``unit_bits`` of the protocol are to be added for one in units of the data.
    """

    bits_per_dim: float
    standard_error: float | None
    prior: float
    decoder: float
    times: tuple[int, ...]
    curve: tuple[float, ...]
    total: tuple[float, ...]
    num: int
    num_samples: int
    protocol: dict[str, Any]


def save_likelihood(
    model: Model,
    store: Store,
    splits: Sequence[str] = ("held_out",),
    protocol: Protocol = Protocol(),
    folder: Path | None = None,
    format: str = "png",
) -> tuple[dict[str, Likelihood], Path]:
    """The bound on each of the ``splits`` by the ``protocol``, and the picture of the curves, "png", "svg" or "pdf".

    Written are a file of figures for each split and a picture, by default in the folder likelihood of the run, under
    names of this step and protocol (`name_of`). For the optimal variance errors by time that were not measured are so
    first, and kept in the run. Raises UserError, before a bound is computed, for what cannot be computed or written.
    """
    if protocol.variance == "optimal":
        model = with_errors(model, store)
    protocols = {split: replace(protocol, split=split) for split in splits}
    out = folder or model.folder / "likelihood"
    for of_split in protocols.values():
        check(model, store, of_split)
    check_writable(out, "out")
    make_folder(out)
    results = dict[str, Likelihood]()
    for split, of_split in protocols.items():
        result = results[split] = split_likelihood(model, store, of_split)
        write_text(out / f"{name_of(result.protocol, of_split, split)}.json", encode(dataclasses.asdict(result)) + "\n")
    curve = out / f"{name_of(result.protocol, of_split, '-'.join(('curve', *results)))}.{format}"
    with replacing(curve) as unfinished:
        save_figure(drawn(results), unfinished, format, **model.marks)
    return results, curve


def drawn(results: Mapping[str, Likelihood]) -> "Figure":
    """The matplotlib figure of the curves of some results, by name."""
    return likelihood_curves({name: (it.times, it.curve, it.decoder, it.total) for name, it in results.items()})


def name_of(protocol: Mapping[str, Any], asked: Protocol, what: str) -> str:
    """A file name (no suffix) of its own for ``what``, a split or the "curve" of some, of this step and protocol."""
    of_all = {**protocol, "split": None, "num": asked.num}
    digest = hashlib.sha256(json.dumps(of_all, sort_keys=True).encode()).hexdigest()[:8]
    fewer = (f"-{asked.calls}-calls" if asked.calls else "") + (f"-{asked.num}-images" if asked.num else "")
    return f"step{protocol['step']}-{what}{fewer}-{digest}"


@within_memory("batch_size")
def split_likelihood(model: Model, store: Store, protocol: Protocol = Protocol()) -> Likelihood:
    """The bound without the guide; UserError for a protocol that does not fit, NotFiniteError for NaN."""
    protocol = check(model, store, protocol)
    order = randomness.Order(protocol.seed, "likelihood", 0, store.count(protocol.split))
    chosen = order[: protocol.num or None].sort().values
    most = -(-len(chosen) // SAMPLES) if protocol.calls else len(chosen)
    batches = list(enumerate(torch.split(chosen, min(protocol.batch_size, most))))
    images, conditions = store.images(protocol.split), conditions_of(model, store, protocol.split)
    bounds = bounds_of(model, images, conditions, protocol, batches, f"bounding {protocol.split}")
    given = "label" if model.labels.count and store.labelled else "condition" if model.conditions else ""
    how: dict[str, Any] = {key: getattr(protocol, key) for key in ("variance", "split", "clip", "seed")}
    how |= {"calls": protocol.calls or model.process.T, "ema": model.averaged, "step": model.step, "T": model.process.T}
    how |= {"dtype": model.arithmetic, "batch_size": protocol.batch_size, "given": given, "data": store.content_hash}
    how |= {"weights": model.weights_sha256, "run": model.data.run}
    if store.scale.is_float:
        present = ~store.images(protocol.split)[chosen].isnan()
        how["unit_bits"] = store.scale.bits(present).mean().item()
    return _summary(bounds, len(chosen), how)


def bounds_of(
    model: Model,
    images: Tensor,
    conditions: Tensor | None,
    protocol: Protocol,
    batches: Sequence[tuple[int, Tensor]],
    job: str,
) -> list[Bound]:
    """The bounds of batches of the ``images``, uint8 or float32 [N, C, H, W] in units of the data.

    A batch is a number, by which an estimate draws its times, and the indices of its images, int64 [B], which with the
    time decide the noise. ``conditions``, [N, ...], are the labels or conditions in their units that the network is
    given.
    """
    device, T = model.device, model.process.T

    def bound(number: int, index: Tensor) -> Bound:
        slots, drawn = index.to(device), None
        x_0, present = known(model.data.scale.to_model(images[index].to(device)), model.data.scale)
        rows = None if conditions is None else conditions[index].to(device)
        denoise = finite(model.denoise(rows if model.conditions is None else model.conditions.told(x_0, rows)), index)
        if protocol.calls:
            parts = torch.arange(protocol.calls - 1)
            drawn = strata(T, len(parts), Key(protocol.seed, "likelihood times", number, parts))
        return variational_bound(
            clipped(denoise) if protocol.clip else denoise,
            model.process,
            x_0,
            lambda t: randomness.normal(Key(protocol.seed, "likelihood", t, slots), tuple(x_0.shape[1:])),
            variance=protocol.variance,
            sampled=drawn,
            discretised=present is None,
            present=present,
            on_call=on_call,
        )

    with counting(job, "network calls") as count, torch.inference_mode():
        on_call = counter(count, len(batches) * (protocol.calls or T))
        return [bound(*batch) for batch in batches]


def conditions_of(model: Model, store: Store, split: str) -> Tensor | None:
    """What a store says of its images to the network of a model: labels or conditions, or None."""
    if model.conditions is not None:
        return store.conditions(split) if model.conditions.name == STORED else None
    return store.labels(split) if model.labels.count else None


def _summary(bounds: list[Bound], num: int, protocol: dict[str, Any]) -> Likelihood:
    """Means over images. With an estimate, batches are the independent samples, for their images share times."""
    of_image = torch.cat([bound.bits_per_dim for bound in bounds]).cpu()
    exact = protocol["calls"] == protocol["T"]
    samples = of_image if exact else torch.stack([bound.bits_per_dim.mean() for bound in bounds]).cpu()
    error = samples.std().item() / math.sqrt(len(samples)) if len(samples) > 1 else None
    by_time: dict[int, list[Tensor]] = {}
    for bound in bounds:
        for t, column in zip(bound.times, bound.to_bits(bound.terms).cpu().unbind(1), strict=True):
            by_time.setdefault(t, []).append(column)
    curve = {t: torch.cat(columns).mean().item() for t, columns in sorted(by_time.items())}
    prior = torch.cat([bound.to_bits(bound.prior) for bound in bounds]).mean().item()
    decoder = torch.cat([bound.to_bits(bound.decoder) for bound in bounds]).mean().item()
    total, bits = _total(bounds, torch.tensor(list(curve))), of_image.mean().item()
    curves = tuple(curve), tuple(curve.values()), total
    return Likelihood(bits, error, prior, decoder, *curves, num, len(samples), protocol)


def _total(bounds: list[Bound], times: Tensor) -> tuple[float, ...]:
    """The decoder's term and those up to each of ``times``, mean over images: each drawn term stands for its part."""
    total = torch.zeros(len(times), dtype=torch.float64)
    for bound in bounds:
        terms = bound.to_bits(bound.terms * bound.weights).sum(0).cpu().cumsum(0)
        sums = torch.cat((terms.new_zeros(1), terms)) + bound.to_bits(bound.decoder).sum().cpu()
        total += sums[torch.searchsorted(torch.tensor(bound.times), times, right=True)]
    return tuple((total / sum(len(bound.decoder) for bound in bounds)).tolist())


def terms_of(protocol: Mapping[str, Any]) -> str:
    """How many of the T terms of the bound were computed: "all 1000 terms", "estimated from 10 of 1000 terms"."""
    calls, T = protocol["calls"], protocol["T"]
    return f"all {T} terms" if calls == T else f"estimated from {calls} of {T} terms"


def describe(result: Likelihood) -> str:
    """A result in a line, with how it came about."""
    how = result.protocol
    error = " ± unknown" if result.standard_error is None else f" ± {result.standard_error:.4f}"
    return (
        f"{how['split']:9} {result.bits_per_dim:.4f}{error} bits/dim (prior {result.prior:.4f}, decoder "
        f"{result.decoder:.4f}); {counted(result.num, 'image')}, {terms_of(how)}, {how['variance']} variance, "
        f"step {how['step']}, {weights_in_words(how['ema'])}"
        + (f", given the {how['given']}" if how["given"] else "")
        + (f"; in the data's units {result.bits_per_dim + how['unit_bits']:.4f}" if "unit_bits" in how else "")
    )


_LIKELIHOOD = TypeAdapter(Likelihood)


def read(path: Path) -> Likelihood | None:
    """A file of `save_likelihood`; None for a file that is damaged or no result."""
    try:
        values = decode(path.read_bytes())
        texts = dict.fromkeys(("split", "weights", "run"), is_text)
        counts = dict.fromkeys(("step", "calls", "T"), is_count)
        check_kinds(values.get("protocol"), {**texts, **counts, "ema": lambda ema: isinstance(ema, bool | float)})
        return _LIKELIHOOD.validate_json(json.dumps(values), strict=True)
    except (OSError, ValueError):
        return None


def check(model: Model, store: Store, protocol: Protocol) -> Protocol:
    """The protocol with its variance settled; UserError where it does not fit the model or its data."""
    protocol, count = check_terms(model, protocol), store.count(protocol.split)
    check_data(model.folder, model.data, store)
    if count == 0:
        raise UserError("", store.path, f"has no {protocol.split} images", "choose another split")
    if not 0 <= protocol.num <= count:
        raise UserError("num", protocol.num, f"is outside 1..{count}, the {protocol.split} images", "0 takes all")
    store.verify()
    return protocol


def check_terms(model: Model, protocol: Protocol) -> Protocol:
    """The protocol with its variance settled; UserError where the model has no such bound."""
    T = model.process.T
    model.kind.check_means(model.folder, ": its estimate is not the mean that the bound needs")
    if protocol.calls != 0 and not 2 <= protocol.calls <= T:
        raise UserError("calls", protocol.calls, f"is outside 2..{T}, the terms of the bound", "0 takes all of them")
    if protocol.batch_size < 1:
        raise UserError("batch_size", protocol.batch_size, "must be at least 1")
    check_variance(protocol.variance, model.learned_variance, model.errors is not None)
    automatic = "learned" if model.learned_variance else "large"
    return replace(protocol, variance=automatic if protocol.variance == "auto" else protocol.variance)
