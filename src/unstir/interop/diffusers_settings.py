"""Our U-Net, process and chain as diffusers' UNet2DModel and schedulers, and back: settings, and names of weights.

q, k and v are one matrix here and three there; every other weight is renamed, so the way there and back is exact.
Tables of schedulers are float32 and ours float64: the same schedule differs by some 1e-4 of 1 - abar at first times.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from math import gcd
from typing import Any

import torch
from torch import Tensor

from unstir.chain import Chain, SpacingName
from unstir.errors import UserError, short
from unstir.interop.foreign import known_setting
from unstir.nn.config import UNetConfig
from unstir.runs import build
from unstir.runs.sections import DiffusionConfig

_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional", "learned"),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}
"""Settings of UNet2DModel that ours has not, with the values that mean our network, its default first."""
_BLOCKS = {"DownBlock2D": False, "UpBlock2D": False, "AttnDownBlock2D": True, "AttnUpBlock2D": True}
"""The blocks that are ours, and whether they have attention."""
_SAME = {"layers_per_block": "num_blocks", "norm_num_groups": "groups"} | {
    name: name for name in ("in_channels", "dropout", "norm_eps", "freq_shift", "flip_sin_to_cos", "downsample_padding")
}
"""Settings of UNet2DModel that ours has under another name or the same."""
_LATER = {"dropout": 0.0, "num_class_embeds": None, "num_train_timesteps": None, "attn_norm_num_groups": None}
"""Settings that UNet2DModel did not have from the first, with its defaults; the others are in every file."""


def to_unet2d(config: UNetConfig, height: int, width: int) -> dict[str, Any]:
    """The arguments of the UNet2DModel that equals our network, for images of this size. UserError where none does."""
    for key, value, due in (("padding", config.padding, "zeros"), ("layout", config.layout, "ho")):
        if value != due:
            raise UserError(f"model.{key}", value, "has no equal in diffusers", {"to": "onnx"})
    levels = range(len(config.mults))
    heads = {config.widths[level] // config.heads_of(config.widths[level]) for level in (*config.attention, levels[-1])}
    if len(heads) > 1 and config.heads > 1:
        widths = f"makes heads of {', '.join(map(str, sorted(heads)))} channels"
        raise UserError("model.heads", config.heads, f"{widths}, and UNet2DModel has one width for all", {"to": "onnx"})
    return {
        "sample_size": height if height == width else [height, width],
        **{theirs: getattr(config, ours) for theirs, ours in _SAME.items()},
        "freq_shift": int(config.freq_shift) if config.freq_shift.is_integer() else config.freq_shift,
        "out_channels": config.out_channels or config.in_channels,
        "down_block_types": ["AttnDownBlock2D" if i in config.attention else "DownBlock2D" for i in levels],
        "up_block_types": ["AttnUpBlock2D" if i in config.attention else "UpBlock2D" for i in reversed(levels)],
        "block_out_channels": list(config.widths),
        "attention_head_dim": None if config.heads == 1 and not config.head_channels else heads.pop(),
        "num_class_embeds": config.num_classes or None,
        "time_embedding_type": "learned" if config.time_table else "positional",
        "num_train_timesteps": config.time_table or None,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "attn_norm_num_groups": config.groups if config.scale_shift else None,
    }


def from_unet2d(settings: Mapping[str, Any]) -> UNetConfig:
    """The config of our network that equals a UNet2DModel of these settings; UserError for what it has not, by name."""
    given = {key: allowed[0] for key, allowed in _FIXED.items()} | _LATER | dict(settings)
    for key, allowed in _FIXED.items():
        known_setting(given, key, allowed)
    widths, attention = list(given["block_out_channels"]), _attention(given)
    channels = widths[0] if all(width % widths[0] == 0 for width in widths) else reduce(gcd, widths)
    heads: dict[str, Any] = {}
    if (head := given["attention_head_dim"]) is not None:
        of_levels = {widths[level] // head for level in (*attention, len(widths) - 1)}
        heads = {"heads": of_levels.pop()} if len(of_levels) == 1 else {"head_channels": head}
    outputs, groups = given["out_channels"], given["norm_num_groups"]
    scale_shift = given["resnet_time_scale_shift"] == "scale_shift"
    known_setting(given, "attn_norm_num_groups", (groups,) if scale_shift else (groups, None))
    return UNetConfig(
        **{ours: given[theirs] for theirs, ours in _SAME.items()},
        out_channels=0 if outputs == given["in_channels"] else outputs,
        channels=channels,
        mults=tuple(width // channels for width in widths),
        attention=attention,
        time_table=given["num_train_timesteps"] or 0 if given["time_embedding_type"] == "learned" else 0,
        scale_shift=scale_shift,
        num_classes=given["num_class_embeds"] or 0,
        **heads,
    )


def _attention(given: Mapping[str, Any]) -> tuple[int, ...]:
    """The levels with attention; UserError for other blocks, or for one way alone."""
    down, up = list(given["down_block_types"]), list(given["up_block_types"])[::-1]
    for key in ("down_block_types", "up_block_types"):
        for block in given[key]:
            known_setting({key: block}, key, _BLOCKS)
    levels = tuple(i for i, block in enumerate(down) if _BLOCKS[block])
    if levels != tuple(i for i, block in enumerate(up) if _BLOCKS[block]):
        raise UserError("up_block_types", tuple(up[::-1]), "must have attention at the levels of down_block_types")
    return levels


_TOP = {
    "time.first": "time_embedding.linear_1",
    "time.second": "time_embedding.linear_2",
    "label": "class_embedding",
    "input_conv": "conv_in",
    "output_norm": "conv_norm_out",
    "output_conv": "conv_out",
}
_PLACES = {"down": "down_blocks", "middle": "mid_block", "up": "up_blocks"}
_RESIZES = {"down": "downsamplers", "up": "upsamplers"}
_LEAVES = {
    "first_norm": "norm1",
    "first_conv": "conv1",
    "time": "time_emb_proj",
    "second_norm": "norm2",
    "second_conv": "conv2",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "out": "to_out.0",
}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the parts of an attention before version 0.15, as the files of google/ddpm-* do."""


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our U-Net under diffusers' names, as copies."""
    theirs = {}
    for name, value in weights.items():
        parts = value.chunk(3) if ".qkv." in name else (value,)
        for theirs_name, part in zip(_theirs(name), parts, strict=True):
            theirs[theirs_name] = part.clone()
    return theirs


def from_diffusers(weights: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """The weights of our U-Net, named ``keys``, among diffusers' ``weights``; UserError for one missing or too many."""
    there = {_renewed(name): value for name, value in weights.items()}
    needed = {key: _theirs(key) for key in keys}
    wanted = {name for names in needed.values() for name in names}
    if wrong := sorted(wanted ^ there.keys()):
        which = "is missing" if wrong[0] in wanted else "is unknown"
        raise UserError("", wrong[0], f"{which} in the network that config.json describes")
    return {key: torch.cat([there[name] for name in names]) for key, names in needed.items()}


def _renewed(name: str) -> str:
    head, _, kind = name.rpartition(".")
    place, _, leaf = head.rpartition(".")
    return f"{place}.{_OLD[leaf]}.{kind}" if ".attentions." in name and leaf in _OLD else name


def _theirs(name: str) -> list[str]:
    """Diffusers' names of one of our weights: three where it is q, k and v in one."""
    module, kind = name.rsplit(".", 1)
    if name == "time.table":
        return ["time_proj.weight"]
    if module.endswith(".qkv"):
        place = _place(module.removesuffix(".qkv"))
        return [f"{place}.to_{letter}.{kind}" for letter in "qkv"]
    if module in _TOP:
        return [f"{_TOP[module]}.{kind}"]
    if module.endswith(".resize.conv"):
        return [f"{_place(module.removesuffix('.resize.conv'))}.{_RESIZES[module.split('.')[0]]}.0.conv.{kind}"]
    place, leaf = module.rsplit(".", 1)
    return [f"{_place(place)}.{_LEAVES[leaf]}.{kind}"]


def _place(module: str) -> str:
    first, _, rest = module.partition(".")
    inner = re.sub(r"\bblocks\b", "resnets", rest)
    return f"{_PLACES[first]}.{inner}"


_PREDICTS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
_SPACINGS = ("trailing", "leading", "linspace")  # that diffusers has too
_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}
_SAMPLERS = {
    "DDPMScheduler": ("ancestral", 0),
    "DDIMScheduler": ("ddim", 50),
    "PNDMScheduler": ("pndm", 50),
    "HeunDiscreteScheduler": ("heun", 20),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", 20),
    "UniPCMultistepScheduler": ("unipc", 20),
}
"""The sampler that a scheduler is here, with its usual steps, 0 for all T; others are as DDPM."""
_DPM_SOLVERS = {
    ("dpmsolver++", 1): "ddim",
    ("dpmsolver++", 2): "dpmpp_2m",
    ("dpmsolver++", 3): "dpmpp_3m",
    ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
}
"""The sampler of DPMSolverMultistepScheduler, by its algorithm_type and solver_order."""
_OPEN: dict[str, SpacingName] = {"linspace": "linspace_open", "leading": "leading_open", "trailing": "trailing"}
"""The spacing here of each timestep_spacing of the two multistep solvers."""
_ABSENT = {"clip_sample_range": 1.0, "steps_offset": 0, "set_alpha_to_one": True}
"""Settings that the samplers here have not, with the values that mean the same."""
_SIGMAS: dict[str, Any] = {f"use_{name}": False for name in ("karras_sigmas", "exponential_sigmas", "beta_sigmas")}
_MULTISTEP = _SIGMAS | {"final_sigmas_type": "zero", "lower_order_final": True, "use_flow_sigmas": False}
_OF = {
    "HeunDiscreteScheduler": _SIGMAS,
    "DPMSolverMultistepScheduler": _MULTISTEP
    | {"solver_type": "midpoint", "euler_at_final": False, "use_lu_lambdas": False, "lambda_min_clipped": -math.inf},
    "UniPCMultistepScheduler": _MULTISTEP
    | {"solver_type": "bh2", "predict_x0": True, "disable_corrector": [], "solver_p": None},
}
"""Those of these solvers."""
HEUN = "HeunDiscreteScheduler averages slopes in all steps; here the first and last average estimates of the image"
SILENT = "at zero terminal SNR diffusers' solvers take abar_T as 2^-24, here it is 0"
OWN_NOISE = "its steps take the noise of the seed here, so images are of the same distribution, not equal"
WITHOUT_RUNGE_KUTTA = "PNDM with skip_prk_steps is ipndm here, whose first and last steps differ"
DDIM_STRIDES = "DDIMScheduler steps over T // steps times; here a step goes to the next time of the chain"
_LINEAR = {"beta_1": 1e-4, "beta_T": 0.02}  # the options of our linear schedule, with their defaults
_NEAR = 1e-5  # relative difference of betas that float32 explains


def to_scheduler(diffusion: DiffusionConfig, chain: Chain) -> dict[str, Any]:
    """The arguments of the DDPMScheduler of a process and a chain.

    A schedule that diffusers has under no name is written out, beta by beta. Raises UserError where its tables, which
    are float32, cannot hold it.
    """
    if chain.variance == "optimal":
        raise UserError("grids.variance", "optimal", "is none of diffusers' variances", {"to": "safetensors"})
    fixed = "small" if chain.variance == "small" else "large"
    settings: dict[str, Any] = {
        "num_train_timesteps": diffusion.T,
        "prediction_type": _PREDICTS[diffusion.predict],
        # of a learned variance in every other type DDPMScheduler would take all channels for the image
        "variance_type": "learned_range" if diffusion.learned_variance else f"fixed_{fixed}",
        "clip_sample": chain.clip,
        "timestep_spacing": spacing_there(chain),
    }
    if diffusion.schedule == "linear":
        first, last = (diffusion.options.get(name, usual) for name, usual in _LINEAR.items())
        settings |= {"beta_schedule": "linear", "beta_start": first, "beta_end": last}
    elif diffusion.schedule == "cosine" and not diffusion.options:
        settings |= {"beta_schedule": "squaredcos_cap_v2"}
    else:
        _check_float32(diffusion)
        settings |= {"trained_betas": _betas(diffusion).tolist()}
    if chain.threshold:
        settings |= {"thresholding": True, "dynamic_thresholding_ratio": chain.threshold, "sample_max_value": 1e6}
    return settings | ({"rescale_betas_zero_snr": True} if diffusion.zero_terminal_snr else {})


def spacing_there(chain: Chain) -> str:
    """The timestep_spacing of a chain, of those that diffusers has."""
    return chain.spacing if chain.spacing in _SPACINGS else "trailing"


def from_scheduler(settings: Mapping[str, Any]) -> tuple[DiffusionConfig, Chain, list[str]]:
    """The process, the chain and notes of what differs, by diffusers' settings; UserError for another process."""
    name, T = settings.get("_class_name", "DDPMScheduler"), settings.get("num_train_timesteps", 1000)
    variance = settings.get("variance_type") or "fixed_small"
    if name == "DDPMScheduler":
        known_setting(settings, "variance_type", (*_VARIANCES, None))
    learned = _VARIANCES.get(variance) == "learned"
    predicts = {theirs: ours for ours, theirs in _PREDICTS.items()}
    predict = known_setting(settings, "prediction_type", predicts, "epsilon")
    diffusion = _schedule(settings, T, predict=predicts[predict], learned_variance=learned)
    chain, notes = _chain(settings, name, diffusion.T)
    if chain.sampler == "ancestral":
        chain = chain.changed(variance=_VARIANCES[variance] if name == "DDPMScheduler" else "auto")
    return diffusion, chain, notes


def _betas(diffusion: DiffusionConfig) -> Tensor:
    """beta_1..beta_T before a shift to zero terminal SNR, float64 [T]."""
    schedule = build.schedule(replace(diffusion, zero_terminal_snr=False))
    return torch.tensor([schedule.beta(t) for t in range(1, schedule.T + 1)], dtype=torch.float64)


def _check_float32(diffusion: DiffusionConfig) -> None:
    """Raise UserError where 1 - abar is off by more than 1% in diffusers' tables, as by steps below 1e-5 or so."""
    betas = _betas(diffusion)
    ours, theirs = -torch.expm1(torch.log1p(-betas).cumsum(0)), 1 - (1 - betas.float()).cumprod(0)
    off = (theirs / ours - 1).abs()
    if off.max() > 0.01:
        t = int(off.argmax()) + 1
        wrong = f"is not one for diffusers: in its float32 tables 1 - abar is off by {off.max():.0%} at t={t}"
        raise UserError("diffusion.schedule", diffusion.schedule, wrong, {"to": "safetensors"})


def _schedule(settings: Mapping[str, Any], T: int, **of_network: Any) -> DiffusionConfig:
    rest: dict[str, Any] = {"T": T, "zero_terminal_snr": bool(settings.get("rescale_betas_zero_snr")), **of_network}
    if (betas := settings.get("trained_betas")) is not None:
        return _named(betas, rest)
    if known_setting(settings, "beta_schedule", ("linear", "squaredcos_cap_v2")) == "linear":
        ends = {"beta_1": settings.get("beta_start", 0.0001), "beta_T": settings.get("beta_end", 0.02)}
        return DiffusionConfig(schedule="linear", options=ends, **rest)
    return DiffusionConfig(schedule="cosine", **rest)


def _named(betas: Any, rest: dict[str, Any]) -> DiffusionConfig:
    given = torch.tensor(betas, dtype=torch.float64)
    ends: dict[str, float] = {"beta_1": float(given[0]), "beta_T": float(given[-1])}
    for name, options in {"linear": ends, "cosine": {}, "sigmoid": {}}.items():
        try:
            ours = DiffusionConfig(schedule=name, options=dict(options), **{**rest, "T": len(given)})
        except UserError:
            continue
        table = _betas(ours)
        if bool(((table - given).abs() <= _NEAR * table).all()):
            return ours
    raise UserError("trained_betas", betas, "are those of no schedule here")


def _chain(settings: Mapping[str, Any], name: str, T: int) -> tuple[Chain, list[str]]:
    """How a pipeline with this scheduler samples, as nearly as a chain can, and notes on the rest."""
    sampler, steps = _SAMPLERS.get(name, ("ancestral", 0))
    of_solver, multistep = _OF.get(name, {}), _OF.get(name, {}).keys() >= _MULTISTEP.keys()
    notes = [] if name in _SAMPLERS else [f"{name} is not a sampler here; grids are drawn by the ancestral chain"]
    if name == "PNDMScheduler" and settings.get("skip_prk_steps"):
        sampler, notes = "ipndm", [WITHOUT_RUNGE_KUTTA]
    order, algorithm = settings.get("solver_order", 2), settings.get("algorithm_type", "dpmsolver++")
    if name == "DPMSolverMultistepScheduler":
        sampler = _DPM_SOLVERS.get((algorithm, order), "")
    if multistep and (not sampler or order not in (1, 2, 3)):
        sampler, order = sampler or "dpmpp_2m", 2
        notes.append(f"a solver of this algorithm_type and solver_order is not here; {sampler} of order 2 is taken")
    notes += [HEUN] * (sampler == "heun") + [OWN_NOISE] * (sampler == "dpmpp_2m_sde")
    notes += [SILENT] * bool(multistep and settings.get("rescale_betas_zero_snr"))
    clip = bool(settings.get("clip_sample", name in ("DDPMScheduler", "DDIMScheduler")))
    spacing = known_setting(settings, "timestep_spacing", _SPACINGS, "linspace" if of_solver else "leading")
    if name == "DDIMScheduler" and clip:
        notes.append("DDIM here is diffusers' with use_clipped_model_output=True: eps follows the clamped image")
    taken = min(steps, T) or T
    if name == "DDIMScheduler" and (T % taken if spacing == "trailing" else spacing == "linspace" and taken < T):
        notes.append(f"{DDIM_STRIDES}, so its pictures are other ones")
    notes += [
        f"{key}={short(settings[key])} is not taken over"
        for key, usual in (_ABSENT | of_solver).items()
        if settings.get(key, usual) not in (None, usual)
    ]
    chain = Chain(sampler, taken, _OPEN[spacing] if multistep else spacing)
    thresholding = bool(settings.get("thresholding"))  # where its bound is at most 1 it is to clip
    share = settings.get("dynamic_thresholding_ratio", 0.995) if settings.get("sample_max_value", 1.0) > 1 else 0.0
    chain = chain.changed(clip=clip or thresholding, threshold=float(share) if thresholding else 0.0)
    return chain.changed(options={"order": order}) if sampler == "unipc" else chain, notes
