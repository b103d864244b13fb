"""The default and the bounds of every setting, written down: a change of one changes what runs mean."""

import json

from pydantic import TypeAdapter

from unstir.runs.config import Config
from unstir.runs.toml import to_dict

SETTINGS = """
recipe = ""
imported = ""
seed = 0
data.source = "mnist"
data.options = null
data.store = ""
data.size = 0
data.channels = 3 >= 1 <= 64
data.depth = "auto"
data.scale = []
data.held_out = null >= 0 < 1
data.sha256 = ""
data.flip = false
data.condition = ""
data.condition_options = null
model.in_channels = 3 >= 1 <= 16384
model.channels = 128 >= 1 <= 16384
model.mults = [1, 2, 2, 2] >= 1 <= 16384
model.num_blocks = 2 >= 1 <= 64
model.attention = [1] >= 0 <= 1000000
model.heads = 1 >= 1 <= 16384
model.head_channels = 0 >= 0 <= 16384
model.dropout = 0.1 >= 0 < 1
model.groups = 32 >= 1 <= 16384
model.norm_eps = 1e-06 > 0 <= 1
model.freq_shift = 1.0 >= 0
model.flip_sin_to_cos = false
model.time_table = 0 >= 0 <= 100000
model.scale_shift = false
model.layout = "ho"
model.downsample_padding = 0 >= 0 <= 1
model.padding = "zeros"
model.num_classes = 0 >= 0 <= 1000000
model.condition_values = 0 >= 0 <= 1000000
model.condition_channels = 0 >= 0 <= 1000000
model.out_channels = 0 >= 0 <= 1000000
model.augmented = false
model.type = null
model.options = null
diffusion.schedule = "linear"
diffusion.options = null
diffusion.T = 1000 >= 2 <= 100000
diffusion.zero_terminal_snr = false
diffusion.predict = "eps"
diffusion.learned_variance = false
loss.objective = "simple"
loss.weighting = "simple"
loss.weighting_options = null
loss.vlb_weight = 0.001 > 0 <= 1000000000000.0
loss.teacher = "v"
loss.times = "uniform"
loss.times_options = null
loss.input_perturbation = 0.0 >= 0 <= 10
loss.noise_choices = 1 >= 1 <= 64
train.length = "100 epochs"
train.batch_size = 128 >= 1 <= 1000000
train.micro_batch = 0 >= 0 <= 1000000
train.activation_checkpointing = 0 >= 0 <= 13
train.optimizer = "adam"
train.lr = 0.0002 > 0 <= 1000000000000.0
train.weight_decay = 0.0 >= 0 <= 1000000000000.0
train.beta1 = 0.9 >= 0 < 1
train.beta2 = 0.999 >= 0 < 1
train.adam_eps = 1e-08 > 0 <= 1
train.warmup = "5000 steps"
train.warmup_start = 0.0 >= 0 <= 1
train.lr_schedule = "constant"
train.lr_period = "0 steps"
train.lr_every = "step"
train.clip = 1.0 >= 0 <= 1000000000000.0
train.loss_scale = 1.0 > 0 <= 1000000000000.0
train.ema_decay = 0.9999 >= 0 < 1
train.ema_warmup = true
train.power_ema = false
train.dtype = "auto"
train.compile = "no"
train.device = "auto"
train.condition_dropout = 0.0 >= 0 < 1
train.augment = 0.0 >= 0 < 1
train.init = ""
log.every = "50 steps"
log.to = []
log.held_out_images = 128 >= 0 <= 1000000
log.held_out_times = 10 >= 1 <= 100000
checkpoint.every = "1 epoch"
checkpoint.keep = 2 >= 1 <= 1000000
grids.sampler = "ancestral"
grids.steps = 50 >= 1 <= 1000000
grids.spacing = "trailing"
grids.times = [] >= 0 <= 1000000
grids.variance = "auto"
grids.clip = true
grids.eta = 0.0 >= 0 <= 1
grids.threshold = 0.0 >= 0 < 1
grids.guidance = 1.0 >= 0 <= 1000
grids.guidance_low = 1 >= 1 <= 1000000
grids.guidance_high = 0 >= 0 <= 1000000
grids.seed = 0
grids.options = null
grids.epochs = [] >= 0 <= 1000000
grids.log_spaced = 6 >= 0 <= 100
grids.num = 64 >= 1 <= 10000
grids.nrow = 8 >= 1 <= 1000000
grids.channels = [] >= 0 <= 1000000
"""
SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def settings():
    """A line for each setting, from the schema that values are checked by."""
    schema, defaults = TypeAdapter(Config).json_schema(), to_dict(Config())
    found = schema["$defs"]
    for name, of in schema["properties"].items():
        if "$ref" not in of:
            yield f"{name} = {json.dumps(defaults[name])}"
            continue
        for key, rules in found[of["$ref"].rsplit("/", 1)[1]]["properties"].items():
            parts = [rules, *rules.get("anyOf", ()), rules.get("items", {})]
            bounds = [f"{sign} {json.dumps(part[k])}" for part in parts for k, sign in SIGNS.items() if k in part]
            yield " ".join([f"{name}.{key} = {json.dumps(defaults[name].get(key))}", *bounds])


def test_the_defaults_and_bounds_are_those_written_down():
    assert list(settings()) == SETTINGS.strip().splitlines()
