"""Settings that between them take every branch of a training step, for tests of what depends on the device."""

LEVERS = {
    "train__optimizer": "muon", "train__augment": 0.5, "train__power_ema": True, "loss__times": "laplace",
    "loss__input_perturbation": 0.1, "loss__noise_choices": 4, "train__activation_checkpointing": 1,
}  # fmt: skip
BY_CLASS = {
    "model__num_classes": 10, "train__condition_dropout": 0.2, "model__attention": [0, 1], "model__time_table": 20,
    "diffusion__learned_variance": True, "loss__objective": "hybrid", "loss__times": "importance",
}  # fmt: skip
FILLING = {"data__condition": "masked", "train__augment": 0.5, "train__condition_dropout": 0.3}
VARIETY = {"plain": {}, "levers": LEVERS, "by class": BY_CLASS, "filling": FILLING}
