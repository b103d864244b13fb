"""From a config to the objects it describes.

`torch.compile` changes a network in place, so that its weights keep their names. "graphs" also records its kernels as
CUDA graphs, which a GPU runs without waiting for Python; elsewhere it is "yes". The first call compiles them, which
takes minutes; torch keeps them (in TORCHINDUCTOR_CACHE_DIR), so that the next start takes seconds. They give other last
bits, so a run keeps to what it began with.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from unstir import parts
from unstir.diffusion.arithmetic import layout
from unstir.diffusion.augmentation import unaugmented
from unstir.diffusion.denoiser import Denoiser, Prediction, returned, takes
from unstir.errors import Remedy, UserError
from unstir.nn.config import ModelConfig
from unstir.nn.unet import UNet
from unstir.progress import sized
from unstir.randomness import Key, derive_seed, normal
from unstir.runs.config import Config
from unstir.runs.sections import DiffusionConfig
from unstir.theory.parameterization import PARAMETERIZATIONS, Parameterization, error_at_each_time
from unstir.theory.process import Process
from unstir.theory.schedule import NoiseSchedule, zero_terminal_snr

if TYPE_CHECKING:
    from unstir.diffusion.loss import Objective, TimeTable


def schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The noise schedule, betas taken literally. UserError as `parts.make`, and where one's own has not T times."""
    name, options = config.schedule, config.options
    made = parts.make("schedule", name, config.T, options=options, section="diffusion.options")
    if not isinstance(made, NoiseSchedule) or made.T != config.T:
        raise UserError("diffusion.schedule", name, f"must return a NoiseSchedule with T={config.T}")
    return zero_terminal_snr(made) if config.zero_terminal_snr else made


def check_parts(config: Config) -> None:
    """Raise UserError where a part that training and its grids need is absent, or does not take its options."""
    noise_schedule = schedule(config.diffusion)
    for predict in (config.diffusion.predict, *([config.loss.teacher] if config.kind.has_teacher else [])):
        PARAMETERIZATIONS[predict].check(noise_schedule)
    _weights(config, noise_schedule, PARAMETERIZATIONS[config.diffusion.predict])
    times(config, torch.device("cpu"))
    if parts.is_own(config.loss.objective):
        parts.check_options("loss", config.loss.objective, config.loss.objective_options, "loss.objective_options")
    with parts.guarded("sampler", config.grids.sampler, "grids"):
        config.grids.visited(noise_schedule)
        if parts.is_own(config.grids.sampler):
            _try_sampler(config, Process(noise_schedule))


def _try_sampler(config: Config, process: Process) -> None:
    """Raise UserError where a sampler of the user's own does not get from noise to images, whatever the network."""
    from unstir.diffusion.draw import draw, starting_noise

    def denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        x0 = torch.zeros_like(x_t)
        return Prediction(x0, process.eps(x_t, x0, t))

    indices = torch.arange(2)
    x_T = starting_noise(0, indices, (config.data.channels, 8, 8))
    for step in draw(denoise, process, x_T, indices, config.grids, weak=denoise):
        if returned(step.x) != returned(x_T):
            shapes = f"makes {returned(step.x)} of {returned(x_T)} at t={step.t}"
            raise UserError("sampler", config.grids.sampler, shapes, "yield Step(t, x, x0) with x like x_T")
    if not bool(step.x.isfinite().all()):
        raise UserError("sampler", config.grids.sampler, "makes images that are not finite", "mend it")


def network(config: Config, device: torch.device) -> nn.Module:
    """The network with its initial weights, a function of config.seed; torch's own generators are left alone.

    A U-Net lies in memory as suits the device (`layout`). Raises UserError where a network of the user's own cannot be
    found or made (`unstir.parts`).
    """
    with torch.random.fork_rng(devices=[]), _float32():
        torch.default_generator.manual_seed(derive_seed(config.seed, "weights"))
        net = _made(network_config(config)).to(device)
    if isinstance(net, UNet):
        net = net.to(memory_format=layout(device))  # type: ignore[call-overload, unused-ignore]  # torch forgot it
        net.checkpoint_activations(config.train.activation_checkpointing)
    return net


@contextmanager
def _float32() -> Iterator[None]:
    """In this block torch makes weights in float32, whatever the program's default is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _made(config: ModelConfig) -> nn.Module:
    sizes = config.in_channels, config.out_channels or config.in_channels, config.condition_size
    net = parts.make("network", config.type, *sizes, options=config.arguments, section="model.options")
    return cast(nn.Module, net)


def outline(config: Config) -> nn.Module:
    """The network on torch's meta device: its shapes, without memory. Raises UserError as `network`."""
    with torch.device("meta"):
        return _made(network_config(config)).to("meta")  # for buffers made of NumPy's arrays


def num_parameters(config: Config) -> int:
    """The number of weights of a config's network, counted without making them."""
    return sum(p.numel() for p in outline(config).parameters())


def forward_flops(config: Config, height: int, width: int) -> int:
    """Operations of convolutions and products in a forward pass of one image, two for each multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode  # with what a pass on the meta device imports, two seconds

    with FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        _output(config, outline(config).eval(), height, width, 1)
    return int(counter.get_total_flops())


def _output(config: Config, net: nn.Module, height: int, width: int, num: int) -> Tensor:
    """What a network makes of ``num`` grey images at the least time, on torch's default device."""
    x, t = torch.zeros(num, config.model.in_channels, height, width), torch.zeros(num, dtype=torch.int64)
    draws = net.training and takes(net, "dropout_key")
    keys = {"dropout_key": Key(0, "dropout", 0, torch.arange(num))} if draws else {}
    takes_augmentation = config.train.augment > 0 and takes(net, "augmentation")
    augmentation = {"augmentation": unaugmented(num, x.device)} if takes_augmentation else {}
    output: Tensor = net(x, t, _no_condition(network_config(config), x, t), **keys, **augmentation)
    return output


def _no_condition(model: ModelConfig, x: Tensor, t: Tensor) -> Tensor | None:
    """A condition of zeros, of the kind that a network of these settings takes."""
    if model.condition_channels:
        return x.new_zeros(len(x), model.condition_size, *x.shape[2:])
    if model.condition_values:
        return x.new_zeros(len(x), model.condition_size)
    return t if model.num_classes else None


def check_own(config: Config, height: int, width: int) -> None:
    """Raise UserError where a network of the user's own is not as `unstir.network` asks, on images of this size."""
    if config.model.is_unet:
        return
    name, net = config.model.type, outline(config)
    if wrong := [key for key, t in net.state_dict().items() if t.dtype != torch.float32]:
        raise UserError("model.type", name, f"holds {wrong[0]}, which is not float32", "keep it as a plain attribute")
    if config.train.augment and not takes(net, "augmentation"):
        needs = "needs a network that takes augmentation"
        raise UserError("train.augment", config.train.augment, needs, {"train.augment": 0.0})
    due = [2, config.model.in_channels * (2 if config.diffusion.learned_variance else 1), height, width]
    images = f"images of {sized((config.model.in_channels, height, width))}"
    try:
        with torch.device("meta"):
            output = _output(config, net.train(), height, width, 2)
    except Exception as error:
        raise UserError("model.type", name, f"fails on {images}: {parts.said(error)}") from None
    if returned(output) != str(due):
        raise UserError("model.type", name, f"returns {returned(output)} of two {images}, not {due}")
    if output.requires_grad:
        output.sum().backward()  # type: ignore[no-untyped-call, unused-ignore]
    if unlearned := [key for key, parameter in net.named_parameters() if parameter.grad is None]:
        mend = "register it as a buffer, or take it out"
        raise UserError("model.type", name, f"has the parameter {unlearned[0]}, which gets no gradient", mend)
    if _draws(config, height, width):
        mend = "take dropout_key in its forward pass and draw with unstir.randomness.kept"
        raise UserError("model.type", name, "draws random numbers of torch's, which are not kept", mend)


def try_loss(config: Config, height: int, width: int) -> None:
    """Raise UserError where a loss of the user's own does not train the network on images of this size."""
    name = config.loss.objective
    if not parts.is_own(name) or (config.data.condition and not config.model.condition_size):
        return  # the size of a condition is known once the images are packed
    from unstir.diffusion.loss import denoising_loss

    made = denoiser(config, network(config, torch.device("cpu")).eval(), torch.float32)
    noise = normal(Key(0, "trial", 0, torch.arange(2)), (2, config.model.in_channels, height, width))
    x_0, eps = noise[:, 0].clamp(-1, 1), noise[:, 1]
    t = torch.tensor([1, config.diffusion.T])
    condition = _no_condition(network_config(config), x_0, torch.zeros_like(t))
    total = denoising_loss(made, x_0, t, eps, condition, objective=cast("Objective", objective(config, made))).total
    if not bool(total.isfinite().all()):
        raise UserError("loss.objective", name, f"gives {total.tolist()} for noise at t={t.tolist()}", "keep it finite")
    if not total.requires_grad:
        raise UserError("loss.objective", name, "gives the network no gradient", "compute it from denoiser(x_t, t)")


def _draws(config: Config, height: int, width: int) -> bool:
    """Whether a forward pass in training takes numbers of torch's own generator, which is left as it was."""
    net = network(config, torch.device("cpu")).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        _output(config, net, height, width, 2)
        return not torch.equal(before, torch.get_rng_state())


def network_config(config: Config) -> ModelConfig:
    """The network's own config: a learned variance doubles outputs, hiding adds a label, augmenting an input."""
    outputs = config.model.in_channels * (2 if config.diffusion.learned_variance else 1)
    augmented = config.train.augment > 0
    return replace(config.model, out_channels=outputs, num_classes=num_labels(config), augmented=augmented)


def num_labels(config: Config) -> int:
    """The labels that the network knows: its classes, and one more that says nothing where labels are hidden."""
    classes = config.model.num_classes
    return classes + (1 if classes and config.train.condition_dropout else 0)


def denoiser(config: Config, net: nn.Module, dtype: torch.dtype) -> Denoiser:
    """The network as a denoiser of the configured process; raises UserError where eps prediction is undefined."""
    process = Process(schedule(config.diffusion))
    parameterization = PARAMETERIZATIONS[config.diffusion.predict]
    parameterization.check(process.schedule)
    needs = config.train.augment > 0 and not config.model.is_unet  # to the U-Net none is the same as zeros
    learned = config.diffusion.learned_variance
    return Denoiser(net, process, parameterization, dtype, learned, needs_augmentation=needs)


def teacher(config: Config, net: nn.Module, dtype: torch.dtype) -> Denoiser:
    """The denoiser whose paths a run learns from, of the weights that it began with; errors as `denoiser`."""
    parameterization, trained = PARAMETERIZATIONS[config.loss.teacher], denoiser(config, net, dtype)
    parameterization.check(trained.process.schedule)
    return replace(trained, parameterization=parameterization)


def objective(config: Config, denoiser: Denoiser) -> "Objective | None":
    """What the config's [loss] asks training to minimise, its weights on the network's device; None: paths."""
    from unstir.diffusion.loss import Objective  # which sampling does not need

    if config.kind.has_teacher:
        return None
    weights = _weights(config, denoiser.process.schedule, denoiser.parameterization)
    weights = None if weights is None else weights.to(next(denoiser.net.parameters()))
    return Objective(config.loss.objective, weights, config.loss.vlb_weight, config.loss.objective_options)


def _weights(config: Config, noise_schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor | None:
    """The weight of the squared error at each time, float64 [T+1]; None for equal ones. UserError as `parts.make`."""
    cfg = config.loss
    if cfg.weighting == "simple" and not cfg.weighting_options:
        return None
    from unstir.theory.weighting import loss_weights

    with parts.guarded("weighting", cfg.weighting, "loss"):
        return loss_weights(cfg.weighting, noise_schedule, parameterization, cfg.weighting_options)


def times(config: Config, device: torch.device) -> "TimeTable | None":
    """What draws the times by the density that the config's [loss] asks for, on ``device``; None: by no density."""
    from unstir.diffusion.loss import TimeTable, probabilities

    cfg = config.loss
    with parts.guarded("times", cfg.times, "loss"):
        p = probabilities(cfg.times, schedule(config.diffusion), cfg.times_options)
    if cfg.times in ("uniform", "importance"):
        return None
    return TimeTable((p.float() if device.type == "mps" else p).to(device))


def device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA, else Apple's MPS, else the CPU. Raises UserError where it is absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda", "mps"):
        raise UserError("device", name, "must be auto, cpu, cuda, cuda:1 or mps")
    try:
        chosen = torch.device(name)
        torch.empty((), device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError("device", name, "is not on this machine", ({"device": "auto"}, {"device": "cpu"})) from None
    return chosen


def dtype_name(name: str, on: torch.device) -> Literal["float32", "bfloat16"]:
    """The arithmetic that a config's name means on a device; "auto" is bfloat16 where it is native, else float32.

    Raises UserError for another name.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise UserError("dtype", name, "must be auto, float32 or bfloat16")
    bfloat16 = has_native_bfloat16(on) if name == "auto" else name == "bfloat16"
    return "bfloat16" if bfloat16 else "float32"


def dtype(name: str, on: torch.device) -> torch.dtype:
    """`dtype_name` as torch's own type."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype_name(name, on)]


def has_native_bfloat16(on: torch.device) -> bool:
    """Whether products of bfloat16 are instructions of the device; emulated ones are slower."""
    if on.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if on.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


BACKEND = "inductor"
NO = MappingProxyType({"compile": "no"})


def compiled(denoiser: Denoiser, how: str) -> Denoiser:
    """The denoiser with its network compiled in place; "no" leaves it as it is. Raises UserError as `check_compile`.

    Kernels are for one shape each and none is chosen by timing it, so that all processes make the same ones whatever
    came before. With "graphs" gradients begin as zeros that are to be kept (``zero_grad(set_to_none=False)``): those of
    a first micro-batch would lie where the graph of the next one writes.
    """
    if how == "no":
        return denoiser
    check_compile(how, next(denoiser.net.parameters()).device)
    options = None
    if BACKEND == "inductor":
        from torch._inductor import config  # a second that few commands need

        options = {"triton.cudagraphs": how == "graphs"}
        options |= {"deterministic": True} if hasattr(config, "deterministic") else {}  # which came after torch 2.6
    denoiser.net.compile(backend=BACKEND, dynamic=False, options=options)
    for parameter in denoiser.net.parameters():
        if how == "graphs" and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return replace(denoiser, reuses_output=how == "graphs")


def set_aside(how: str) -> AbstractContextManager[object]:
    """In this block compiled networks run uncompiled: for a few calls of other shapes."""
    return torch.compiler.set_stance("force_eager") if how in ("yes", "graphs") else nullcontext()


def check_compile(how: str, device: torch.device, mend: Remedy = NO) -> None:
    """Raise UserError, with what ``mend``s it, where this machine cannot compile as asked for the device."""
    if how not in ("no", "yes", "graphs"):
        raise UserError("compile", how, "must be no, yes or graphs")
    if how != "no" and (reason := lacking(device)):
        raise UserError("compile", how, f"does not work: {reason}", mend)


def lacking(device: torch.device) -> str:
    """What this machine lacks to compile for the device, with its remedy; "" where nothing is."""
    if device.type not in ("cpu", "cuda"):
        return f"torch compiles for CPU and CUDA, not for {device.type}; use another device"
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        return f"there is no C++ compiler {name} on this machine; install it, or name another in CXX"
    return ""


def errors_by_time(config: Config, lines: Iterable[Mapping[str, Any]], weights: str) -> Tensor | None:
    """`Denoiser.errors` of the weights with this hash, from the lines of errors.jsonl; None where it has them not."""
    for line in lines:
        if line["weights"] == weights:
            return error_at_each_time(schedule(config.diffusion), line["times"], line["errors"])
    return None
