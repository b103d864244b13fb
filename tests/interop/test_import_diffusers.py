"""In from diffusers: folders of either layout and age, the Hub's cache, and every refusal by the name of the layer."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from untrained import scrambled

from refusals import mistake, refusing
from unstir.diffusion.draw import starting_noise
from unstir.generate.drawing import Job, sample_batches
from unstir.interop import torch_file
from unstir.interop.diffusers_settings import DDIM_STRIDES, OWN_NOISE, WITHOUT_RUNGE_KUTTA, from_scheduler
from unstir.interop.foreign import Asked
from unstir.interop.hub import FROM_CACHE
from unstir.interop.importing import import_run
from unstir.parts import library
from unstir.runs.run import Run

pytest.importorskip("diffusers", reason="what is imported is written by it: pip install '.[diffusers]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers with numpy 2
]
diffusers = library("diffusers", "diffusers", "this test")
SMALL = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
BLOCKS = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
GOOGLE = {"attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1}


@pytest.fixture
def folder(tmp_path):
    """folder(unet settings, scheduler) -> the network and the folder of its pipeline, by diffusers itself."""

    def make(unet=None, scheduler=None):
        net = scrambled(diffusers.UNet2DModel(**{**SMALL, **BLOCKS, **(unet or {})}).eval())
        diffusers.DDPMPipeline(net, scheduler or diffusers.DDPMScheduler(20)).save_pretrained(tmp_path / "theirs")
        return net, tmp_path / "theirs"

    return make


def check_same_outputs(net, run, label=None):
    x, t = torch.randn(3, run.data.shape[0], *run.data.shape[1:]), torch.tensor([0, 7, 19])
    with torch.no_grad():
        expected = net(x, t, class_labels=label).sample
        got = run.model(device="cpu").denoiser.net(x, t, label)
    assert expected.std() > 0.1 and (got - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "unet",
    [
        {**GOOGLE, "norm_eps": 1e-6},
        {"attention_head_dim": 4},
        {"attention_head_dim": 8, "down_block_types": ["AttnDownBlock2D"] * 2, "up_block_types": ["AttnUpBlock2D"] * 2},
        {"block_out_channels": [24, 16], "num_class_embeds": 3, "dropout": 0.1},
        {"out_channels": 6},
    ],
    ids=["as google's", "heads", "heads of one width", "falling, with classes", "learned variance"],
)
def test_a_folder_becomes_a_run_whose_network_answers_alike(folder, tmp_path, unet):
    learned = {"variance_type": "learned_range"} if "out_channels" in unet else {}
    net, theirs = folder(unet, diffusers.DDPMScheduler(20, beta_schedule="squaredcos_cap_v2", **learned))
    run = import_run(theirs, tmp_path / "run").run
    check_same_outputs(net, run, torch.tensor([2, 0, 1]) if "num_class_embeds" in unet else None)
    assert run.config.diffusion.schedule == "cosine" and run.config.diffusion.learned_variance == bool(learned)
    assert run.labels.count == unet.get("num_class_embeds", 0) and run.length == 0 and run.saved_steps() == [0]
    schedule, table = run.model().process.schedule, diffusers.DDPMScheduler(20, beta_schedule="squaredcos_cap_v2")
    assert torch.allclose(schedule.log_abar[1:].exp().float(), table.alphas_cumprod, rtol=1e-5)


def as_in_2022(theirs, old):
    """The folder as google/ddpm-cifar10-32 lies: no subfolders, a pickle, and other names of attention."""
    old.mkdir()
    shutil.copy(theirs / "unet/config.json", old / "config.json")
    settings = json.loads((theirs / "scheduler/scheduler_config.json").read_text())
    kept = ("_class_name", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "clip_sample")
    few = {key: settings[key] for key in kept} | {"variance_type": "fixed_large"}
    (old / "scheduler_config.json").write_text(json.dumps(few))
    shutil.copy(theirs / "model_index.json", old)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(theirs / "unet/diffusion_pytorch_model.safetensors")
    renamed = {re.sub(r"to_q|to_k|to_v|to_out\.0", lambda m: names[m[0]], name): t for name, t in weights.items()}
    assert len(set(renamed) - set(weights)) > 8
    torch.save(renamed, old / "diffusion_pytorch_model.bin")


def test_a_folder_of_2022_is_read_in_its_layout_its_names_and_its_pickle(folder, tmp_path):
    net, theirs = folder(GOOGLE)
    as_in_2022(theirs, tmp_path / "old")
    done = import_run(tmp_path / "old", tmp_path / "run")
    check_same_outputs(net, done.run)
    chain = done.run.chain()
    assert (chain.sampler, chain.steps, chain.variance, chain.clip) == ("ancestral", 20, "large", True)
    assert f": {sum(p.numel() for p in net.parameters()):,} parameters" in done.lines[0]


def test_a_model_of_the_hub_is_read_from_its_cache_without_a_network(folder, tmp_path, monkeypatch, unstir, refused):
    net, theirs = folder(GOOGLE)
    hub, commit = library("huggingface_hub", "diffusers", "this test"), "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "cache/models--google--ddpm-tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(commit)
    shutil.copytree(theirs, place / "snapshots" / commit)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    status, out, err = unstir("import", "google/ddpm-tiny", "--out", "run")
    run = Run.open("run")
    assert status == 0 and run.config.imported.startswith("google/ddpm-tiny@0123456789ab, "), err
    assert f"note     {FROM_CACHE}" in out
    check_same_outputs(net, run)
    refused(unstir("import", "google/ddpm-other", "--out", "other"), "google/ddpm-other on the Hugging Face Hub: ")
    Path("exported").mkdir()
    Path("exported/model.onnx").touch()
    for source in ("no/such/path", "res/model-last.pt", "res/model.SAFETENSORS", "exported", "exported/model.onnx"):
        assert str(mistake(import_run, source, "other").given) == source and not Path("other").exists()


def test_another_scheduler_gives_its_sampler_and_says_what_is_not_the_same(folder, tmp_path):
    _, theirs = folder(None, diffusers.DDIMScheduler(20, set_alpha_to_one=False, steps_offset=1))
    done = import_run(theirs, tmp_path / "run")
    assert (done.run.chain().sampler, done.run.chain().steps, done.run.chain().spacing) == ("ddim", 20, "leading")
    text = " ".join(done.notes)
    assert "use_clipped_model_output=True" in text and "set_alpha_to_one" in text and "steps_offset=1" in text
    assert list(done.notes) == done.run.log("events").lines[0]["notes"]


def changed(theirs, file, **settings):
    path = theirs / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    ("file", "settings", "key"),
    [
        (UNET, {"time_embedding_type": "fourier"}, "time_embedding_type"),
        (UNET, {"add_attention": False}, "add_attention"),
        (UNET, {"down_block_types": ["SkipDownBlock2D"] * 2}, "down_block_types"),
        (UNET, {"up_block_types": ["UpBlock2D"] * 2}, "up_block_types"),
        (UNET, {"_class_name": "UNet2DConditionModel"}, ""),
        (UNET, {"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        (UNET, {"sample_size": 9}, "size"),
        (UNET, {"sample_size": "big"}, "sample_size"),
        (UNET, {"layers_per_block": 2}, ""),
        (UNET, {"norm_num_groups": 3}, "groups"),
        (UNET, {"block_out_channels": "wide"}, ""),
        (UNET, {"out_channels": 4}, "out_channels"),
        (UNET, {"num_class_embeds": 3}, ""),
        (SCHEDULER, {"beta_schedule": "scaled_linear"}, "beta_schedule"),
        (SCHEDULER, {"trained_betas": [0.1, 0.3, 0.2]}, "trained_betas"),
        (SCHEDULER, {"trained_betas": "many"}, ""),
        (SCHEDULER, {"prediction_type": "flow"}, "prediction_type"),
        (SCHEDULER, {"variance_type": "learned"}, "variance_type"),
        (SCHEDULER, {"rescale_betas_zero_snr": True}, "predict"),
        (SCHEDULER, {"timestep_spacing": "odd"}, "timestep_spacing"),
    ],
)
def test_what_has_no_equal_here_is_refused_by_name(folder, tmp_path, file, settings, key):
    _, theirs = folder()
    changed(theirs, file, **settings)
    error = mistake(import_run, theirs, tmp_path / "run")
    assert error.key == key and str(theirs) in (error.where or str(error.given))
    assert not (tmp_path / "run").exists()


def test_what_is_missing_or_not_a_model_is_refused(folder, tmp_path):
    _, theirs = folder()
    for lost, wrong in (
        ("unet/diffusion_pytorch_model.safetensors", theirs / "unet"),
        (SCHEDULER, theirs),
        (UNET, theirs),
        ("model_index.json", theirs),
    ):
        (theirs / lost).unlink()
        assert str(mistake(import_run, theirs, tmp_path / "run").given) == str(wrong)


def test_size_and_classes_are_asked_for_where_the_folder_is_silent(folder, tmp_path):
    _, theirs = folder({"sample_size": None, "num_class_embeds": 3})
    with refusing(given=theirs / "unet/config.json", remedy={"size": 32}):
        import_run(theirs, tmp_path / "run", Asked())
    assert mistake(import_run, theirs, tmp_path / "run", Asked(size=8, classes=("a",))).key == "classes"
    run = import_run(theirs, tmp_path / "run", Asked(size=8, classes=("cat", "dog"))).run
    assert run.labels.names == ("cat", "dog") and run.labels.has_null and run.data.shape == (3, 8, 8)
    changed(theirs, "unet/config.json", sample_size=8)
    for key, value in (("size", 16), ("beta_T", 0.5)):
        with refusing(key, value, remedy={key: None}):
            import_run(theirs, tmp_path / "other", Asked(**{key: value}))
    part = mistake(import_run, theirs / "unet", tmp_path / "other")
    assert part.given == theirs / "unet" and str(theirs) in part.remedy


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv_in.weight": Hostile()}, tmp_path / "weights.bin")
    assert torch_file.convert(tmp_path / "weights.bin", tmp_path / "safe")
    torch.save({"step": 1, "names": ["a"]}, tmp_path / "no-tensors.bin")
    assert torch_file.convert(tmp_path / "no-tensors.bin", tmp_path / "safe")
    for content in (b"text", b"# A page\n", b""):
        (tmp_path / "text.bin").write_bytes(content)
        assert torch_file.convert(tmp_path / "text.bin", tmp_path / "safe")
    assert {path.name for path in tmp_path.iterdir()} == {"weights.bin", "no-tensors.bin", "text.bin"}


@pytest.mark.parametrize(
    ("settings", "spacing", "threshold"),
    [
        ({"_class_name": "DPMSolverMultistepScheduler"}, "linspace_open", 0.0),
        ({"_class_name": "DDIMScheduler"}, "leading", 0.0),
        ({"thresholding": True}, "leading", 0.0),  # its bound is clamped to 1 by default
        ({"thresholding": True, "sample_max_value": 2.0}, "leading", 0.995),
    ],
)
def test_what_a_scheduler_leaves_out_is_what_diffusers_takes(settings, spacing, threshold):
    _, chain, _ = from_scheduler({"beta_schedule": "linear"} | settings)
    assert (chain.spacing, chain.threshold, chain.clip) == (spacing, threshold, "DPM" not in str(settings))


@pytest.mark.parametrize(
    ("T", "spacing", "noted"),
    [
        (120, "trailing", True), (120, "leading", False), (1000, "linspace", True), (20, "linspace", False),
    ],
)  # fmt: skip
def test_where_ddim_of_diffusers_steps_past_its_times_is_noted(T, spacing, noted):
    settings = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "timestep_spacing": spacing}
    _, chain, notes = from_scheduler(settings | {"num_train_timesteps": T})
    assert chain.steps == min(50, T) and any(note.startswith(DDIM_STRIDES) for note in notes) == noted


def test_a_setting_of_a_solver_that_is_not_taken_over_is_noted():
    settings = {"_class_name": "UniPCMultistepScheduler", "beta_schedule": "linear", "solver_type": "bh1"}
    (note,) = from_scheduler(settings)[2]
    assert note.startswith("solver_type=")
    assert from_scheduler(settings | {"solver_type": "bh2"})[2] == []
    settings |= {"_class_name": "DPMSolverMultistepScheduler", "solver_type": None, "algorithm_type": "dpmsolver"}
    _, chain, (note,) = from_scheduler(settings)
    assert "algorithm_type" in note and chain.sampler == "dpmpp_2m"


SOLVERS = [
    ("DPMSolverMultistep", {}, "dpmpp_2m", 20),
    ("DPMSolverMultistep", {"timestep_spacing": "leading", "solver_order": 3}, "dpmpp_3m", 12),
    ("DPMSolverMultistep", {"timestep_spacing": "trailing", "solver_order": 1}, "ddim", 7),
    ("DPMSolverMultistep", {"prediction_type": "v_prediction", "thresholding": True}, "dpmpp_2m", 33),
    ("UniPCMultistep", {}, "unipc", 20),
    ("UniPCMultistep", {"timestep_spacing": "leading", "solver_order": 3}, "unipc", 7),
    ("UniPCMultistep", {"timestep_spacing": "trailing"}, "unipc", 33),
    ("HeunDiscrete", {"timestep_spacing": "leading"}, "heun", 50),
]


@pytest.mark.parametrize(("name", "settings", "sampler", "steps"), SOLVERS)
def test_images_are_those_of_the_very_scheduler_of_the_folder(folder, tmp_path, name, settings, sampler, steps):
    scheduler = getattr(diffusers, f"{name}Scheduler")(1000, **settings)
    net, theirs = folder(None, diffusers.DDPMScheduler(1000))
    scheduler.save_pretrained(theirs / "scheduler")
    done = import_run(theirs, tmp_path / "run")
    chain = done.run.chain().changed(steps=steps)
    assert chain.sampler == sampler and bool(done.notes) == (sampler == "heun")
    ours = next(sample_batches(done.run.model(device="cpu"), Job(num=2, chain=chain)))[1]
    scheduler.set_timesteps(steps)
    x = starting_noise(0, torch.arange(2), (3, 8, 8)) * scheduler.init_noise_sigma
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    assert (ours - x).abs().max() < 1e-4 * x.abs().max()


def test_a_stochastic_solver_is_taken_over_and_its_noise_said():
    settings = {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear"}
    _, chain, notes = from_scheduler(settings | {"algorithm_type": "sde-dpmsolver++"})
    assert chain.sampler == "dpmpp_2m_sde" and notes == [OWN_NOISE]


@pytest.mark.parametrize("skip", [True, False])
def test_pndm_without_its_runge_kutta_steps_is_ipndm(skip):
    settings = {"_class_name": "PNDMScheduler", "beta_schedule": "linear", "skip_prk_steps": skip}
    _, chain, notes = from_scheduler(settings)
    assert (chain.sampler, chain.steps) == ("ipndm" if skip else "pndm", 50)
    assert notes == [WITHOUT_RUNGE_KUTTA] * skip
