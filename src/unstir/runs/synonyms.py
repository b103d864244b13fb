"""From an unknown word to the one that was probably meant: by what others call it, or by its letters."""

from collections.abc import Iterable

from unstir.errors import nearest

GOES_ON = "the same command without it, which goes on"
MEANT = {
    "train.lr": "learning_rate base_lr max_lr peak_lr rate step_size",
    "train.length": "epochs num_epochs max_epochs n_epochs epoch steps num_steps max_steps train_steps "
    "num_train_steps max_train_steps total_steps training_steps iterations iters num_iterations n_iter n_iters "
    "max_iters duration kimg",
    "train.batch_size": "batch bs b batchsize global_batch_size micro_batch",
    "train.micro_batch": "microbatch accumulate grad_accum gradient_accumulation_steps",
    "train.activation_checkpointing": "gradient_checkpointing grad_checkpointing checkpoint_activations checkpointing "
    "use_checkpoint recompute recompute_activations remat",
    "data.size": "resolution res image_size img_size imsize crop_size",
    "train.ema_decay": "ema ema_rate ema_beta ema_max_decay use_ema",
    "diffusion.T": "t timesteps num_timesteps diffusion_steps num_diffusion_timesteps num_train_timesteps noise_steps "
    "n_timestep steps",
    "calls": "t timesteps steps num_steps n_steps nfe terms",
    "train.condition_dropout": "label_dropout cond_drop cond_drop_prob p_uncond uncond_prob cfg_dropout label_drop "
    "class_dropout_prob",
    "seed": "s random_seed manual_seed rng_seed generator",
    "data.source": "data dataset data_dir data_path data_root dataroot dataset_name train_data_dir root images path",
    "data.store": "data dataset data_dir data_path dataroot cache cache_dir data_store source",
    "train.device": "gpu gpus gpu_id cuda cpu accelerator",
    "train.dtype": "fp16 bf16 use_fp16 use_bf16 precision mixed_precision amp half",
    "train.init": "model pretrained pretrained_model pretrained_path weights ckpt init_from finetune",
    "checkpoint": "ckpt step epoch weights model checkpoint_path",
    "sheet": "o out output contact_sheet grid picture",
    "out": "o output output_dir outdir out_dir outfile save save_dir sample_dir results_dir result_folder result dir "
    "folder logdir log_dir workdir work_dir name run_name exp_name experiment filename path resume_from "
    "resume_from_checkpoint",
    "train.optimizer": "optim opt optimiser",
    "train.weight_decay": "wd l2",
    "train.clip": "grad_clip clip_grad clip_grad_norm gradient_clip grad_norm max_grad_norm max_norm",
    "train.warmup": "warm_up warmup_steps lr_warmup lr_warmup_steps warmup_epochs",
    "train.lr_schedule": "scheduler lr_scheduler lr_scheduler_type lr_decay",
    "model.channels": "ch width dim base_channels base_dim num_channels model_channels hidden_size",
    "model.mults": "channel_mult channel_mults ch_mult ch_mults dim_mults channel_multiplier",
    "model.num_blocks": "num_res_blocks n_res_blocks blocks depth layers layers_per_block",
    "model.num_classes": "classes n_classes class_cond conditional labels label",
    "diffusion.predict": "prediction prediction_type parameterization parametrization pred_type mean_type",
    "diffusion.options": "beta_1 beta_t beta_start beta_end beta_min beta_max",
    "loss.weighting_options": "min_snr_gamma p2_gamma p2_k snr_gamma",
    "loss.times_options": "times_mean times_scale",
    "diffusion.learned_variance": "learn_sigma learned_sigma learn_var",
    "loss.objective": "loss loss_type loss_name",
    "loss.weighting": "loss_weight snr_weighting",
    "train.augment": "augmentation augment_prob augment_p aug non_leaky_augmentation",
    "data.flip": "random_flip horizontal_flip hflip augment",
    "data.held_out": "heldout val val_split val_size validation validation_split test_split",
    "checkpoint.every": "save_every save_freq save_interval checkpoint_interval checkpointing_steps",
    "checkpoint.keep": "save_total_limit checkpoints_total_limit max_checkpoints",
    "log.every": "log_every log_freq log_interval print_freq logging_steps",
    "log.to": "tracker trackers report_to log_with logger loggers wandb use_wandb tensorboard use_tensorboard tb",
    "grids.num": "n num_samples n_samples nsamples samples num_images n_images images number amount",
    "count": "n num number frames interpolations num_images",
    "grids.steps": "t timesteps num_steps n_steps sample_steps sampling_steps sampling_timesteps ddim_steps nfe calls "
    "inference_steps num_inference_steps iterations iters",
    "grids.sampler": "scheduler method solver sampling_method",
    "grids.guidance": "cfg cfg_scale w guidance_scale guidance_strength guidance_weight scale omega",
    "grids.log_spaced": "sample_every sample_freq sample_interval save_images_epochs",
    "label": "class classes class_id class_name category cond y",
    "labels": "class class_id class_label category cond y",
    "ema": "use_ema average averaged ema_decay",
    "ema_width": "sigma_rel phema post_hoc_ema power_ema",
    "animate": "gif video movie webp mp4",
    "channels": "grey gray rgb colour color mode",
    "to": "format target backend kind framework",
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
    if synonym := _by_word(name, known, section):
        return synonym
    by_name = {key.rpartition(".")[2]: key for key in sorted(known, key=lambda key: "." not in key)}
    if name in by_name:
        return by_name[name]
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
