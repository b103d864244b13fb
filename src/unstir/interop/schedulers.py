"""The forward process and the chain as the settings of diffusers' schedulers, and back.

Their tables are float32 and ours float64: the same schedule differs by some 1e-4 of 1 - abar at the first times.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unstir.chain import Chain, SpacingName
from unstir.errors import UserError, short
from unstir.interop.foreign import known_setting
from unstir.runs import build
from unstir.runs.sections import DiffusionConfig

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
"""The sampler that a scheduler is here, with its usual steps, 0 for all T; others are sampled as DDPM."""
_DPM_SOLVERS = {
    ("dpmsolver++", 1): "ddim",
    ("dpmsolver++", 2): "dpmpp_2m",
    ("dpmsolver++", 3): "dpmpp_3m",
    ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
}
"""The sampler of DPMSolverMultistepScheduler, by its algorithm_type and solver_order."""
_OPEN: dict[str, SpacingName] = {"linspace": "linspace_open", "leading": "leading_open", "trailing": "trailing"}
"""The spacing here of each timestep_spacing of the two multistep solvers."""
_FIXED = {"clip_sample_range": 1.0, "steps_offset": 0, "set_alpha_to_one": True}
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
OWN_NOISE = "the noise of its steps is that of the seed here, so images are of the same distribution, not equal"
WITHOUT_RUNGE_KUTTA = "PNDM with skip_prk_steps is ipndm here: its first and last steps differ from those of diffusers"
DDIM_STRIDES = "DDIMScheduler takes each step over T // steps times; here a step goes to the next time that is visited"
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
    """The process, the chain and notes of what differs, by diffusers' settings; UserError for a process not of ours."""
    name, T = settings.get("_class_name", "DDPMScheduler"), settings.get("num_train_timesteps", 1000)
    variance = settings.get("variance_type") or "fixed_small"
    if name == "DDPMScheduler":
        known_setting(settings, "variance_type", (*_VARIANCES, None), None)
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
    """Raise UserError where 1 - abar is off by more than 1% in diffusers' tables: where steps are below 1e-5 or so."""
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
    if known_setting(settings, "beta_schedule", ("linear", "squaredcos_cap_v2"), None) == "linear":
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
    """How a pipeline with this scheduler samples, as nearly as a chain says it, and notes on the rest."""
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
        for key, usual in (_FIXED | of_solver).items()
        if settings.get(key, usual) not in (None, usual)
    ]
    chain = Chain(sampler, taken, _OPEN[spacing] if multistep else spacing)
    thresholding = bool(settings.get("thresholding"))  # where its bound is at most 1 it is to clip
    share = settings.get("dynamic_thresholding_ratio", 0.995) if settings.get("sample_max_value", 1.0) > 1 else 0.0
    chain = chain.changed(clip=clip or thresholding, threshold=float(share) if thresholding else 0.0)
    return chain.changed(options={"order": order}) if sampler == "unipc" else chain, notes
