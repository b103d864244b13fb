"""The number or switch that a parameter has where none is given, written down: whoever leaves it out relies on it."""

import ast
import importlib
import inspect
from operator import attrgetter
from pathlib import Path

import unstir

PARAMETERS = """
chain:Sampler calls=1 divides_by_alpha=False
chain:Chain steps=50 clip=True eta=0.0 threshold=0.0 guidance=1.0 guidance_low=1 guidance_high=0 seed=0
data.packing:pack strict=False seed=0
data.source:chunk_rows file_bytes=1
diffusion.denoiser:Denoiser learned_variance=False
diffusion.editing:inpaint resamples=10 jump=1
diffusion.editing:inpainting_calls resamples=10 jump=1
diffusion.editing:invert refinements=0
diffusion.editing:blend refinements=0
diffusion.guidance:Interval low=1 high=1073741824
diffusion.likelihood:variational_bound discretised=True
diffusion.likelihood:bound_term discretised=True
diffusion.loss:Objective vlb_weight=0.001
diffusion.samplers.ddim:ddim eta=0.0
diffusion.samplers.unipc:unipc order=3
insight.doctor:diagnose samples=True
insight.gather:gather samples=True
edit.editing:Edited calls=0 nrow=10
edit.editing:Editing.done nrow=10
edit.editing:Editing.results cells=1
edit.edits:inpaint resamples=10 jump=1
edit.edits:invert refinements=2
edit.edits:blend count=8 refinements=2
edit.edits:morph count=8
edit.files:Target singles=False
errors:nearest cutoff=0.6
generate.drawing:Job batch_size=64
generate.drawing:sample_batches first=0
generate.drawing:trajectory limit=61
metrics.classifier:Classifier.probabilities batch_size=64
metrics.classifier:train_classifier seed=0
metrics.distances:kid subsets=100 subset_size=1000 seed=2020
metrics.distances:inception_score splits=10 seed=2020
metrics.distances:precision_recall k=3
metrics.distances:density_coverage k=5
metrics.distances:infinite_fd seed=0 repeats=10
metrics.drawn:Drawn batch_size=64
metrics.features:Network.outputs batch_size=64
metrics.features:Network.features batch_size=64
metrics.figures:Figure num_floor=0 num_reference=0
metrics.figures:halved splits=5
metrics.figures:halves_of splits=5
metrics.frechet:standard_error repeats=10 seed=0
metrics.likelihood:Protocol num=0 calls=0 clip=True seed=0 batch_size=64
metrics.measure:measure num_reference=0
metrics.memorisation:memorisation flip=False closest=6
metrics.nearest:nearest k=1 flip=False
metrics.nearest:nearest_features k=1
metrics.plan:Plan seeds=3 num_reference=0 memorisation=True flip=False
metrics.reference:reference num=0
metrics.request:EvaluationRequest num=0 seeds=None fid=False reference=0
metrics.request:EvaluationRequest memorisation=True seed=0 batch_size=64 ema=True
metrics.wasserstein:swd seed=0 patches=32 projections=128 repeats=20
metrics.wasserstein:descriptors seed=0 patches=32
runs.card:Labels count=0 has_null=False
runs.checkpoint:Checkpoint ema=False
runs.files:replacing needs=0
runs.lines:append durable=False
runs.loading:model_of ema=True
runs.model:Model ema=True averaged=True nrow=8
runs.run:Run.model ema=True
significance:effect choices=1
significance:exact choices=1
significance:paired choices=1
significance:two_sample choices=1
significance:difference choices=1
theory.gaussian:Gaussian.discretised_log_prob half_width=0.00392156862745098
theory.oracle:FiniteData chunk=256
theory.schedule:linear T=1000 beta_1=0.0001 beta_T=0.02
theory.schedule:cosine T=1000 offset=0.008
theory.schedule:sigmoid T=1000 start=-3.0 end=3.0 tau=1.0
theory.weighting:loss_weights min_snr_gamma=5.0 p2_gamma=1.0 p2_k=1.0
train.record:cut_log due=0
train.state:State step=0 logged=0 measured=0 seconds=0.0
"""


def test_what_is_left_out_is_what_is_written_down():
    for line in PARAMETERS.strip().splitlines():
        name, *due = line.split()
        module, _, name = name.partition(":")
        parameters = inspect.signature(attrgetter(name)(importlib.import_module(f"unstir.{module}"))).parameters
        assert [f"{key}={parameters[key].default}" for key in (each.partition("=")[0] for each in due)] == due, line


MUTABLE = {"Listing", "LossHistory", "State"}


def test_all_values_but_four_cannot_be_changed_and_no_decorator_says_what_holds_without_it():
    mutable = set()
    for path in Path(unstir.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for each in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                if ast.unparse(each).startswith("dataclass"):
                    said = [part for part in ast.walk(each) if isinstance(part, ast.keyword)]
                    switches = {part.arg: part.value.value for part in said if isinstance(part.value, ast.Constant)}
                    assert all(value is (key != "eq") for key, value in switches.items() if key != "extra"), node.name
                    mutable |= set() if switches.get("frozen") else {node.name}
    assert mutable == MUTABLE
