"""One handle to a trained model: which weights, on which device, in which arithmetic, led away from what.

Everything that samples, edits or measures takes a `Model`: of a run (`Run.model`), or of any network (`Model.of`).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unstir.chain import Chain
from unstir.data.classes import matched, some
from unstir.diffusion.arithmetic import kernels
from unstir.diffusion.denoiser import Conditioned, Denoise, Denoiser
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.samplers import Step
from unstir.errors import UserError
from unstir.pixels import PIXELS, Scale, shown
from unstir.progress import sized
from unstir.runs import brought, build
from unstir.runs.build import compiled
from unstir.runs.card import DataCard, Labels
from unstir.runs.checkpoint import content_hash
from unstir.runs.config import Kind
from unstir.runs.named import reference
from unstir.theory.parameterization import PARAMETERIZATIONS, check_variance
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule

if TYPE_CHECKING:
    from unstir.runs.conditions import Conditions


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model:
    """A trained model. Raises UserError where its ``guide`` does not fit.

    ``load(dtype)`` returns the denoiser on ``device``; it is called when the first image is computed, so that a model
    takes no memory before. ``data`` describes what it was trained on; ``folder`` is its run, where what is made of it
    goes by default. ``chain`` is how it is sampled where nothing else is asked. ``weights_sha256`` is the hash (hex) of
    the weights, those of ``step``; ``ema`` says whether averaged ones were asked for, ``averaged`` whether they are so;
    both are the width of an average made after training. ``run`` names the run as `Run.open` takes it, where that is
    not its ``folder``. ``dtype`` is "float32", "bfloat16" or "auto", ``compile`` what `build.compiled` takes, and
    ``engine`` computes the network. ``settings`` are those of the network and the process, as JSON has them. Guidance
    leads away from the ``guide`` (autoguidance, Karras et al. 2024: a smaller network or one trained less, on the same
    data) or, with None, from the model without its condition. ``conditions`` describe each image beside a class; None:
    nothing does. ``nrow`` is the tiles in a row of a grid, ``scale`` the pixels of a tile for each of an image, 0 for
    as many as make small images visible, ``channels`` are those that pictures show, ``kind`` says what the weights
    answer. ``errors`` are those of `Denoiser`, which the optimal variance needs; None where they were not measured.
    """

    load: Callable[[torch.dtype], Denoiser]
    process: Process
    predict: str
    learned_variance: bool
    data: DataCard
    labels: Labels
    chain: Chain
    folder: Path
    step: int
    weights_sha256: str
    settings: dict[str, Any]
    device: torch.device
    run: str = ""
    dtype: str = "float32"
    compile: str = "no"
    engine: str = "torch"
    ema: bool | float = True
    averaged: bool | float = True
    guide: "Model | None" = None
    nrow: int = 8
    scale: int = 0
    channels: tuple[int, ...] = ()
    kind: Kind = field(default_factory=Kind)
    conditions: "Conditions | None" = None
    errors: Tensor | None = None

    def __post_init__(self) -> None:
        if self.guide is not None:
            _check_guide(self, self.guide)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        process: Process,
        shape: tuple[int, int, int],
        *,
        predict: str = "eps",
        learned_variance: bool = False,
        classes: Sequence[str] = (),
        has_null: bool = False,
        conditions: "Conditions | None" = None,
        chain: Chain | None = None,
        scale: Scale = PIXELS,
    ) -> "Model":
        """The model of a network as it is now, without a folder; arguments and errors as those of `Run.create`.

        ``network(x, t, condition)`` takes what `unstir.network` says and is of any class; it is copied. ``shape`` is
        (C, H, W), and ``scale`` the units of images.
        """
        diffusion = brought.of_process(process, predict, learned_variance)
        net = copy.deepcopy(network).eval().requires_grad_(False)
        parameterization = PARAMETERIZATIONS[predict]
        denoiser = Denoiser(net, process, parameterization, learned_variance=learned_variance)
        return cls(
            load=lambda dtype: replace(denoiser, dtype=dtype),
            process=process,
            predict=predict,
            learned_variance=learned_variance,
            data=DataCard(shape, tuple(classes), scale=scale, condition=conditions.card if conditions else None),
            labels=Labels(len(classes), tuple(classes), has_null),
            conditions=conditions,
            chain=chain or brought.usual_chain(process),
            folder=Path(),
            step=0,
            weights_sha256=content_hash(net.state_dict()),
            settings={"model": {"type": type(net).__qualname__}, "diffusion": asdict(diffusion)},
            device=next(net.parameters(), torch.empty(0)).device,
            ema=False,
            averaged=False,
            kind=Kind(origin=type(net).__qualname__),
        )

    def __repr__(self) -> str:
        words = weights_in_words(self.averaged), sized(self.shape), str(self.device)
        return f"Model({str(self.folder)!r}, step {self.step}, {', '.join(words)})"

    @cached_property
    def denoiser(self) -> Denoiser:
        """The denoiser in evaluation mode, loaded when it is first asked for."""
        with torch.inference_mode(False):  # sampling may be the first to ask; gradients may be asked for later
            denoiser = self.load(build.dtype(self.dtype, self.device))
            denoiser = denoiser if self.errors is None else replace(denoiser, errors=self.errors)
            return compiled(denoiser, self.compile)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.data.shape

    def to_units(self, images: Tensor) -> Tensor:
        """Images about [-1, 1] in units of the data: float32 [N, C, H, W], or uint8 for pixels, on the CPU."""
        return self.data.scale.to_units(images)

    def pixels(self, images: Tensor) -> Tensor:
        """Images about [-1, 1] as pictures show them: uint8 [N, 1 or 3, H, W] on the CPU."""
        return shown(images, self.channels)

    @property
    def in_pixels(self) -> bool:
        """Whether an image is a grey or RGB picture, which an image file can hold."""
        return not self.data.scale.is_float and self.shape[0] in (1, 3)

    @property
    def arithmetic(self) -> str:
        """What ``dtype`` means on the device: "float32" or "bfloat16"."""
        return build.dtype_name(self.dtype, self.device)

    @property
    def guide_name(self) -> str | None:
        """The guide as `Run.model` reads it: "STEP" of the same run, or "RUN@STEP"; None without one."""
        return None if self.guide is None else f"{self._run_of(self.guide, '@')}{self.guide.step}"

    def _run_of(self, guide: "Model", end: str = "") -> str:
        """The run of a guide with ``end`` behind it; "" where it is this model's own, however both are written."""
        theirs, ours = (model.run or model.folder for model in (guide, self))
        return "" if reference(theirs) == reference(ours) else f"{theirs}{end}"

    @property
    def hides(self) -> bool:
        """Whether the network learned to do without conditions, and so can be guided."""
        return self.labels.has_null if self.conditions is None else self.conditions.hides

    def condition(
        self, indices: Tensor, label: int | None = None, shares: Sequence[int] = (), given: Tensor | None = None
    ) -> Tensor | None:
        """What the network is told of the images with these indices, int64 [B]; None where it knows no conditions.

        That is a class as `Labels.of` has it, or row i mod N of the conditions ``given`` in their units, [N, ...], by
        default those of held-out images that the run keeps.
        """
        if self.conditions is None:
            return self.labels.of(indices, label, shares)
        return self.conditions.given(self.conditions.rows(indices, given), self.device)

    def check_condition(self, given: Tensor | None) -> None:
        """Raise UserError for a condition that was ``given`` to a model that knows none, or one of another shape."""
        if given is not None and self.conditions is not None:
            self.conditions.checked(given)
        elif given is not None:
            raise UserError("condition", list(given.shape), "was given, but this model knows none", {"condition": None})

    def beside(self, images: Tensor, indices: Tensor, given: Tensor | None = None) -> Tensor:
        """Pixels of images, uint8 [B, C, H, W], with the images that describe them on their left, where any do."""
        if self.conditions is None or not self.conditions.is_image:
            return images
        return torch.cat((self.conditions.pixels(indices, given, images.shape[1]), images), 3)

    def denoise(self, condition: Tensor | None) -> Conditioned:
        """The denoiser with the condition of a batch (`condition`); that of a model that knows none is None."""
        return Conditioned(self.denoiser, condition if self.labels.count or self.conditions else None)

    def away_from(self, condition: Tensor | None) -> Denoise | None:
        """What guidance leads away from, for the condition of a batch; None where there is nothing."""
        if self.guide is not None:
            return self.guide.denoise(condition)
        return None if condition is None or not self.hides else self.denoise(self.hidden(condition))

    def hidden(self, condition: Tensor) -> Tensor:
        """What a network that learned to do without conditions is given in the place of a batch's."""
        if self.conditions is None:
            return torch.full_like(condition, self.labels.count)
        return torch.zeros_like(condition)

    @torch.inference_mode()
    def draw(self, chain: Chain, indices: Tensor, condition: Tensor | None) -> Iterator[Step]:
        """The steps from the noise of the images with these indices, int64 [B], to the images; errors as `draw`."""
        x_T = starting_noise(chain.seed, indices, self.shape)
        yield from draw(self.denoise(condition), self.process, x_T, indices, chain, self.away_from(condition))

    def check(self, chain: Chain) -> None:
        """Raise UserError for a chain that this model cannot take, wherever it begins, or a guide without effect."""
        check_variance(chain.variance, self.learned_variance, self.errors is not None)
        self.kind.check(self.folder, chain, self.guide_name)
        chain.check(self.process.T)
        scale = chain.guidance
        if self.guide is not None and scale in (0, 1):
            alone = "has no effect" if scale == 1 else "is alone, which is to sample from it,"
            raise UserError("guide", self.guide_name, f"{alone} at guidance={scale:g}", {"guidance": 2})
        if scale != 1 and self.guide is None and not self.hides:
            needs = "needs a network trained with train.condition_dropout"
            raise UserError("guidance", scale, needs, ({"guidance": 1}, "give a less trained step as guide"))

    def takes(self, **changes: Any) -> bool:
        """Whether this model can take its own chain with these ``changes``."""
        try:
            self.check(self.chain.changed(**changes))
        except UserError:
            return False
        return True

    def cost(self, chain: Chain, each: str = "") -> str:
        """What an image costs by a chain, in words, ``each`` behind it, and what guidance adds."""
        return f"{chain.cost(self.process.schedule)}{each}{self.besides(chain)}"

    def besides(self, chain: Chain, process: Process | None = None) -> str:
        """What guidance adds to the calls of a chain of ``process``, else the model's, in words; "" for nothing."""
        schedule = (process or self.process).schedule
        if idle := idle_guidance(chain, schedule):
            return f", and {idle}"
        if chain.guidance in (0, 1):
            return ""
        first, last = chain.guidance_low, chain.guidance_high or schedule.T
        when = "" if (first, last) == (1, schedule.T) else f" at t = {first} to {last}"
        added = "computed for two conditions (guidance)" if self.guide is None else "and as many of the guide"
        return f", {added}{when}"

    def provenance(self) -> dict[str, Any]:
        """What decides pixels beside what is asked, as JSON has it: weights, network, process, machine."""
        return {
            "step": self.step,
            "ema": self.ema,
            "guide": self.guide and {"step": self.guide.step, "run": self._run_of(self.guide)},
            "shape": list(self.shape),
            **self.settings,
            **self.marks,
            "device": self.device.type,
            "dtype": self.arithmetic,
            "compile": self.compile,
            "engine": self.engine,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            **({"kernels": kernels(self.device)} if self.device.type == "cuda" else {}),
        }

    @property
    def marks(self) -> dict[str, str]:
        """What each image of the model says: the id of its run, "" without one, and the hash of the weights."""
        return {"run": self.data.run, "weights": self.hashes}

    @property
    def hashes(self) -> str:
        """The hash of the weights, and after a space that of the guide's."""
        return self.weights_sha256 if self.guide is None else f"{self.weights_sha256} {self.guide.weights_sha256}"

    def unloaded(self, **how: Any) -> "Model":
        """The same model and guide with nothing loaded; ``how`` are another ``dtype`` or ``compile`` for both."""
        return replace(self, guide=self.guide and self.guide.unloaded(**how), **how)


def idle_guidance(chain: Chain, schedule: NoiseSchedule) -> str:
    """What to say of a chain whose guidance acts at no time that it visits; "" where it acts, or there is none."""
    if chain.guidance == 1 or chain.guidance_acts(schedule):
        return ""
    interval = f"t = {chain.guidance_low} to {chain.guidance_high or schedule.T}"
    return f"guidance never acts: no time that the chain visits is in {interval}"


def chosen_average(ema: bool, width: float | None) -> bool | float:
    """What `Run.model` takes as ``ema``, of an option for the average and one for its width; not both may be given."""
    if width is not None and not ema:
        raise UserError("ema_width", width, "is of an average", ({"ema_width": None}, {"ema": True}))
    return ema if width is None else width


def weights_in_words(ema: bool | float) -> str:
    """What weights an ``averaged`` of a model means, as a protocol holds it: "raw", "averaged" or with its width."""
    width = "" if isinstance(ema, bool) else f" (width {ema})"
    return f"averaged{width} weights" if ema else "raw weights"


def _sizes(model: Model) -> object:
    """The shape of a model's conditions beside classes, and how they are scaled; "none" without any."""
    return "none" if model.conditions is None else replace(model.conditions.card, sha256="")


def _check_guide(model: Model, guide: Model) -> None:
    """Raise UserError for a guide that is the model itself, or has other images, classes (if any) or process."""
    name, no_fit = model.guide_name, f"does not fit {model.folder}"
    if name == str(model.step):
        raise UserError("guide", name, "is the very step that is sampled", "name an earlier one")
    alike: dict[str, tuple[object, object]] = {
        "shape": (sized(guide.shape), sized(model.shape)),
        "classes": (guide.labels.count or model.labels.count, model.labels.count),
        "conditions": (_sizes(guide), _sizes(model)),
        "T": (guide.process.T, model.process.T),
        "predict": (guide.predict, model.predict),
        "calls": (guide.kind.calls, model.kind.calls),
    }
    if unlike := [f"{key} {theirs}, the run {ours}" for key, (theirs, ours) in alike.items() if theirs != ours]:
        raise UserError("guide", name, f"{no_fit}: it has {'; '.join(unlike)}")
    theirs, ours = guide.labels.names, model.labels.names
    if theirs and ours and matched(theirs, ours) != tuple(range(len(ours))):
        raise UserError("guide", name, f"{no_fit}: its classes are {some(theirs)}, the run's {some(ours)}")
    if not torch.equal(guide.process.schedule.log_abar, model.process.schedule.log_abar):
        raise UserError("guide", name, f"{no_fit}: its noise schedule is another")
