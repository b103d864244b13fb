"""From a word that is not known here to the one that was probably meant: by what others call it, or by its letters."""

from collections.abc import Iterable

from unstir.errors import nearest

SETTINGS = {
    "train.lr": "lr learning_rate base_lr max_lr peak_lr step_size",
    "train.length": "epochs num_epochs max_epochs n_epochs epoch steps num_steps max_steps train_steps num_train_steps "
    "max_train_steps total_steps training_steps iterations iters num_iterations n_iter n_iters max_iters duration kimg",
    "train.batch_size": "batch bs b batchsize train_batch_size total_batch_size global_batch_size",
    "train.micro_batch": "micro_batch_size microbatch accumulate grad_accum gradient_accumulation_steps",
    "train.activation_checkpointing": "gradient_checkpointing grad_checkpointing checkpoint_activations checkpointing "
    "use_checkpoint recompute recompute_activations remat",
    "data.size": "size resolution res image_size img_size imsize crop_size",
    "train.ema_decay": "ema ema_rate ema_beta ema_max_decay use_ema",
    "diffusion.T": "t timesteps num_timesteps diffusion_steps num_diffusion_timesteps num_train_timesteps noise_steps "
    "n_timestep steps",
    "model.dropout": "dropout drop dropout_rate",
    "train.label_dropout": "cond_drop cond_drop_prob p_uncond uncond_prob cfg_dropout label_drop class_dropout_prob",
    "seed": "random_seed manual_seed rng_seed",
    "out": "o output output_dir outdir out_dir save_dir results_dir result_folder logdir log_dir workdir work_dir name "
    "run_name exp_name experiment resume resume_from resume_from_checkpoint continue",
    "data.source": "data dataset data_dir data_path data_root dataroot dataset_name train_data_dir root images path",
    "data.store": "cache cache_dir",
    "train.device": "gpu gpus gpu_id device cuda cpu accelerator",
    "train.dtype": "fp16 bf16 use_fp16 precision mixed_precision amp half dtype",
    "train.init": "init model pretrained pretrained_model pretrained_path weights ckpt init_from finetune",
    "train.optimizer": "optim opt optimiser",
    "train.weight_decay": "wd l2",
    "train.beta1": "adam_beta1 b1",
    "train.beta2": "adam_beta2 b2",
    "train.clip": "grad_clip clip_grad clip_grad_norm gradient_clip grad_norm max_grad_norm max_norm",
    "train.warmup": "warm_up warmup_steps lr_warmup lr_warmup_steps warmup_epochs",
    "train.lr_schedule": "scheduler lr_scheduler lr_scheduler_type lr_decay",
    "model.channels": "ch width dim base_channels base_dim num_channels model_channels hidden_size",
    "model.mults": "channel_mult channel_mults ch_mult ch_mults dim_mults channel_multiplier",
    "model.num_blocks": "num_res_blocks n_res_blocks blocks depth layers layers_per_block",
    "model.attention": "attn attention_levels attn_resolutions attention_resolutions",
    "model.heads": "num_heads attention_heads n_heads",
    "model.num_classes": "classes num_classes n_classes class_cond conditional labels label",
    "diffusion.predict": "prediction prediction_type parameterization parametrization pred_type mean_type",
    "diffusion.schedule": "noise_schedule beta_schedule schedule_name",
    "diffusion.beta_1": "beta_start beta_min",
    "diffusion.beta_T": "beta_end beta_max",
    "diffusion.learned_variance": "learn_sigma learned_sigma learn_var",
    "loss.objective": "loss loss_type loss_name objective",
    "loss.weighting": "loss_weighting loss_weight snr_weighting",
    "loss.min_snr_gamma": "snr_gamma",
    "train.augment": "augmentation augment_prob augment_p aug non_leaky_augmentation",
    "data.flip": "random_flip horizontal_flip hflip augment",
    "data.held_out": "heldout val val_split val_size validation validation_split test_split",
    "checkpoint.every": "save_every save_freq save_interval checkpoint_every checkpoint_interval checkpointing_steps",
    "checkpoint.keep": "save_total_limit checkpoints_total_limit max_checkpoints keep",
    "log.every": "log_every log_freq log_interval print_freq logging_steps",
    "log.to": "tracker trackers report_to log_with logger loggers wandb use_wandb tensorboard use_tensorboard tb",
    "grids.num": "n num num_samples n_samples",
    "grids.steps": "sample_steps sampling_steps sampling_timesteps num_inference_steps ddim_steps",
    "grids.sampler": "sampler sampling_method",
    "grids.guidance": "cfg cfg_scale w guidance guidance_scale guidance_strength",
    "grids.log_spaced": "sample_every sample_freq sample_interval save_images_epochs",
}
"""The key, or option of `unstir train`, that each of these words leads to; of several the first."""


def by_word(table: dict[str, str], word: str, known: Iterable[str], section: str = "") -> str | None:
    """What a ``word`` of the ``table`` leads to among the ``known``, of several one of the same section if there is."""
    plain = word.replace("-", "_").lower()
    found = [name for name, said in table.items() if plain in said.split() and name in known]
    return next((name for name in found if section and name.startswith(f"{section}.")), found[0] if found else None)


def near_setting(key: str, known: Iterable[str]) -> str | None:
    """The key, of those ``known``, that a wrong one was probably meant to be; None where nothing is near.

    It is the one that others call so, the one of this name in another section, or the nearest by its letters.
    """
    known, (section, _, name) = sorted(known), key.rpartition(".")
    if synonym := by_word(SETTINGS, name, known, section):
        return synonym
    by_name = {each.rpartition(".")[2]: each for each in sorted(known, key=lambda each: "." not in each)}
    if name in by_name:
        return by_name[name]
    candidates = {**({} if section else by_name), **{each: each for each in known}}
    near = nearest(key, candidates)
    return candidates[near] if near else None
