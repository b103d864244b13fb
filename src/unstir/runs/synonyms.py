"""From an unknown word to the one that was probably meant: by what others call it, or by its letters."""

from collections.abc import Iterable

from unstir.errors import nearest

GOES_ON = "the same command without it, which goes on"
MEANT = {
    "train.lr": "learning_rate base_lr",
    "train.length": "epochs num_epochs max_epochs steps max_steps max_train_steps train_steps num_train_steps "
    "training_steps iterations iters n_iter duration kimg n_epochs epoch num_steps max_iters",
    "train.batch_size": "batch bs global_batch_size micro_batch",
    "train.micro_batch": "microbatch accumulate grad_accum gradient_accumulation_steps",
    "train.activation_checkpointing": "gradient_checkpointing checkpoint_activations use_checkpoint",
    "data.size": "resolution res image_size img_size",
    "train.ema_decay": "ema ema_rate ema_max_decay use_ema",
    "diffusion.T": "t timesteps num_timesteps diffusion_steps num_diffusion_timesteps num_train_timesteps steps",
    "calls": "t timesteps steps num_steps nfe",
    "train.condition_dropout": "label_dropout cond_drop_prob p_uncond class_dropout_prob",
    "seed": "random_seed manual_seed generator",
    "data.source": "data dataset data_dir data_path dataset_name train_data_dir root path data_root dataroot",
    "data.store": "data dataset data_dir data_path cache cache_dir source",
    "train.device": "gpu gpus cuda cpu",
    "train.dtype": "fp16 bf16 use_fp16 precision mixed_precision amp",
    "train.init": "model pretrained weights ckpt init_from finetune",
    "checkpoint": "ckpt step epoch weights model checkpoint_path",
    "sheet": "o out output grid picture",
    "out": "o output output_dir outdir sample_dir results_dir folder logdir log_dir workdir name run_name experiment "
    "resume_from resume_from_checkpoint",
    "train.optimizer": "optim opt optimiser",
    "train.weight_decay": "wd l2",
    "train.clip": "grad_clip grad_norm max_grad_norm",
    "train.warmup": "warm_up warmup_steps lr_warmup_steps warmup_epochs",
    "train.lr_schedule": "scheduler lr_scheduler lr_scheduler_type lr_decay",
    "model.channels": "width dim num_channels model_channels hidden_size",
    "model.mults": "channel_mult channel_mults ch_mult dim_mults",
    "model.num_blocks": "num_res_blocks blocks layers layers_per_block",
    "model.num_classes": "classes class_cond conditional labels label",
    "diffusion.predict": "prediction prediction_type parameterization mean_type",
    "diffusion.options": "beta_1 beta_t beta_start beta_end beta_min beta_max",
    "loss.weighting_options": "min_snr_gamma snr_gamma p2_gamma p2_k",
    "diffusion.learned_variance": "learn_sigma learned_sigma",
    "loss.objective": "loss loss_type loss_name",
    "loss.weighting": "loss_weight snr_weighting",
    "train.augment": "augment_prob non_leaky_augmentation",
    "data.flip": "random_flip horizontal_flip hflip",
    "data.held_out": "val val_split val_size validation",
    "checkpoint.every": "save_every save_interval checkpoint_interval checkpointing_steps",
    "checkpoint.keep": "save_total_limit checkpoints_total_limit",
    "log.every": "log_every log_interval logging_steps",
    "log.to": "tracker report_to log_with logger wandb use_wandb tensorboard use_tensorboard",
    "grids.num": "n num_samples n_samples samples num_images n_images images",
    "count": "n num frames num_images",
    "grids.steps": "t timesteps num_steps n_steps sample_steps sampling_steps sampling_timesteps ddim_steps nfe calls "
    "inference_steps num_inference_steps",
    "grids.sampler": "scheduler method solver sampling_method",
    "grids.guidance": "cfg cfg_scale w guidance_scale guidance_weight scale",
    "grids.log_spaced": "sample_every sample_freq sample_interval save_images_epochs",
    "label": "class classes category",
    "labels": "class category cond",
    "ema": "use_ema average ema_decay",
    "ema_width": "sigma_rel phema post_hoc_ema power_ema",
    "animate": "gif video",
    "channels": "grey gray rgb colour color mode",
    "to": "format target backend",
    "vary": "variations variation",
    "ancestral": "ddpm",
    "ddim": "euler",
    "dpmpp_2m": "dpm++ dpmpp",
    GOES_ON: "resume continue",
}
"""The key, option, command or value that each of these words leads to; of several the first that is known.

An entry of the sections `SHARED` is also an option of this name: "train.batch_size" is --batch-size of `unstir sample`.
"""

SHARED = "train", "data", "grids"


def near_setting(word: str, known: Iterable[str]) -> str | None:
    """The key or option of those ``known`` that a wrong one was probably meant to be; None where nothing is near."""
    known, (section, _, name) = sorted(known), word.rpartition(".")
    by_name = {key.rpartition(".")[2]: key for key in sorted(known, key=lambda key: "." not in key)}
    exact = by_name.get(name)
    if exact is None or exact.startswith("grids."):  # steps, epochs: elsewhere names of other things
        exact = _by_word(name, known, section) or exact
    if exact:
        return exact
    candidates = {**({} if section else by_name), **{key: key for key in known}}
    near = nearest(word, candidates)
    return candidates[near] if near else None


def _by_word(word: str, known: Iterable[str], section: str) -> str | None:
    """What a word leads to among the ``known``, of several one of the same section if there is."""
    plain = word.replace("-", "_").lower()
    entries = [entry for entry, words in MEANT.items() if plain in words.split()]
    short = {f"{shared}.{name}": name for shared in SHARED for name in known}
    meant = [name for entry in entries for name in (entry, short.get(entry, "")) if name in known]
    of_section = [name for name in meant if section and name.startswith(f"{section}.")]
    return next(iter(of_section + meant), None)
