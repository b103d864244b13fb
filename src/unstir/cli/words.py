"""From an option that a command does not have to the one that was probably meant."""

from collections.abc import Iterable, Sequence

from cyclopts.argument import ArgumentCollection

from unstir.errors import nearest
from unstir.runs.synonyms import by_word, near_setting

OPTIONS = {
    "--num": "n num_samples n_samples nsamples samples num_images n_images images number amount",
    "--count": "n num number frames interpolations num_images",
    "--steps": "t timesteps num_steps n_steps sample_steps sampling_steps sampling_timesteps ddim_steps nfe calls "
    "inference_steps num_inference_steps iterations iters",
    "--calls": "t timesteps steps num_steps n_steps nfe terms",
    "--batch-size": "batch bs b batchsize micro_batch",
    "--guidance": "cfg cfg_scale w guidance_scale guidance_strength guidance_weight scale omega",
    "--label": "labels class classes class_id class_label class_name category cond y",
    "--labels": "label class classes class_id class_label category cond y",
    "--out": "o output output_dir outdir out_dir outfile save save_dir sample_dir dir folder path name result filename",
    "--plot": "o out output figure fig picture",
    "--sheet": "o out output contact_sheet grid picture",
    "--device": "gpu gpus gpu_id cuda cpu accelerator",
    "--dtype": "fp16 bf16 use_fp16 half precision mixed_precision amp",
    "--checkpoint": "ckpt step epoch weights model checkpoint_path resume resume_from",
    "--sampler": "scheduler method solver sampling_method",
    "--spacing": "timestep_spacing skip_type discretization schedule",
    "--variance": "var sigma var_type variance_type",
    "--clip": "clip_denoised clip_sample clamp clip_x0",
    "--threshold": "thresholding dynamic_thresholding dynamic_threshold",
    "--guide": "autoguidance weak_model guide_run",
    "--seed": "s random_seed manual_seed rng_seed generator",
    "--ema": "use_ema average averaged ema_decay",
    "--ema-width": "ema_std sigma_rel ema_length phema post_hoc_ema power_ema",
    "--store": "data dataset data_dir data_path dataroot cache data_store source",
    "--split": "subset set on",
    "--seeds": "repeats repetitions num_seeds",
    "--fid": "inception kid is isc prdc",
    "--features": "inception_path inception_file feature_extractor",
    "--length": "epochs num_epochs epoch steps num_steps max_steps train_steps iterations iters duration",
    "--lr": "learning_rate base_lr max_lr rate",
    "--reference": "num_reference real num_real ref",
    "--memorisation": "memorization copies nearest",
    "--against": "versus vs baseline compare_with",
    "--animate": "gif animation video movie webp mp4",
    "--strip": "trajectory progressive way stages_file",
    "--compare": "samplers comparison",
    "--json": "as_json format",
    "--size": "resolution res image_size img_size imsize crop_size",
    "--channels": "grey gray rgb colour color mode in_channels",
    "--held-out": "val val_split val_size validation validation_split test_split heldout",
    "--sha256": "hash checksum",
    "--strict": "fail error_on_refused",
    "--box": "bbox rect rectangle region crop",
    "--mask": "mask_image mask_path inpaint_mask",
    "--strength": "noise_strength denoising_strength t0 noise",
    "--refinements": "fixed_point inner_steps",
    "--numbers": "indices ids image_ids",
    "--resamples": "resample resampling jump_n_sample num_resamples repaint",
    "--jump": "jump_length",
    "--singles": "individual separate each",
    "--measure": "evaluate metrics",
    "--engine": "backend runtime provider onnx",
    "--to": "format target backend kind framework",
    "--classes": "labels names class_names label_names",
}
"""The option that a word of the field leads to, in the commands that have it; of several the first that a command has.

`unstir train` has the words of its settings, `synonyms.SETTINGS`.
"""


def meant(given: str, command: Sequence[str], arguments: ArgumentCollection) -> str | None:
    """The option of this command that ``given`` was probably to be; None where nothing is near."""
    return option_for(
        given, command, [name for each in arguments if each.parse and not each.children for name in each.names]
    )


def option_for(given: str, command: Sequence[str], options: Iterable[str]) -> str | None:
    """As `meant`, of the names of a command's ``options``."""
    options, word = [name for name in options if name.startswith("--")], given.lstrip("-")
    section, dot, switch = word.removeprefix("no-").replace("-", "_").rpartition(".")
    if word.startswith("no-") and dot and (off := f"--{section}.no-{switch}") in options:
        return off
    if tuple(command) != ("train",) and (synonym := by_word(OPTIONS, word, options)):
        return synonym
    find = near_setting if tuple(command) == ("train",) else nearest
    near = find(word, [name.removeprefix("--") for name in options])
    return f"--{near}" if near else None
