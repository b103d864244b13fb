"""The live page in headless Chromium: its network is torch's, its steps are the sampler's, and it is for everybody."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from serving import violations

import browsers
from conftest import tiny_config
from unstir.chain import Chain
from unstir.data import pack
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.draw import draw
from unstir.errors import UserError
from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet
from unstir.randomness import Key, normal
from unstir.runs.model import Model
from unstir.serve.live import NUM, as_linear, chains_of, contents, rounded, write_live
from unstir.theory import schedule
from unstir.theory.process import Process
from unstir.train.launch import train_run

browser = browsers.browser
SMALL = {"in_channels": 1, "channels": 8, "mults": (1, 2), "num_blocks": 1, "groups": 4, "dropout": 0.0}
BY_CLASS = {"num_classes": 3}
PROCESS = Process(schedule.cosine(100))
CONFIGS = {
    "plain": {},
    "attention, heads, levels": {"channels": 16, "mults": (1, 2, 2), "num_blocks": 2, "attention": (0, 2), "heads": 2},
    "head channels, colour": {"in_channels": 3, "attention": (1,), "head_channels": 4},
    "time": {"scale_shift": True, "flip_sin_to_cos": True, "freq_shift": 0.0},
    "table": {"time_table": 100},
    "padding": {"downsample_padding": 1, "padding": "circular"},
    "wraps": {"padding": "circular"},
    "class": BY_CLASS,
    "report": {**BY_CLASS, "layout": "report_guided", "downsample_padding": 1, "attention": (0,)},
}


def model_of(shape=(1, 8, 8), process=PROCESS, **changes):
    """A model of random weights, none of them 0."""
    config = UNetConfig(**SMALL | {"out_channels": shape[0]} | changes)
    classes = [f"class {number}" for number in range(config.num_classes - 1)]
    return Model.of(shaken(UNet(config)), process, shape, predict="v", classes=classes, has_null=bool(classes))


def shaken(network):
    """The network with noise on each weight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in network.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
    return network


@pytest.fixture
def opened(browser, tmp_path):
    """opened(model, ...) -> its page in a tab that is offline."""

    def page(model, hash="", **options):
        tab.emulate_media(**options)
        tab.goto(write_live(model, tmp_path / "live.html").as_uri() + hash)
        return tab

    with browsers.quiet_tab(browser, ("blob:", "file:")) as tab:
        tab.context.set_offline(True)
        yield page


ONE_CALL = """([x, t, hides]) => {
    const [c, h, w] = data.shape;
    window.network ??= new Network(data, bytes(weights));
    return Array.from(window.network.forward({ c, h, w, x: Float32Array.from(x) }, t, condition(hides)).x);
}"""


def largest_difference(tab, model, times):
    """Between the network in the page and torch with the same weights, over these times; with and without a class."""
    denoiser, worst = rounded(model).denoiser, 0.0
    for t in times:
        x = normal(Key(t, "test", 0, torch.arange(NUM)), model.shape)
        condition = model.condition(torch.arange(NUM))
        for given in [condition] if not model.hides else [condition, model.hidden(condition)]:
            hides = given is not condition
            values = tab.evaluate(ONE_CALL, [x.movedim(1, 0).flatten().tolist(), t - 1, hides])
            due = denoiser.raw(x, t, given).movedim(1, 0)
            worst = max(worst, float((torch.tensor(values).view(due.shape) - due).abs().max()))
            assert due.abs().max() > 0.05
    return worst


def largest_of_pixels(tab, model, images):
    """Between the last frame in the page and torch's images, in 255ths."""
    due = model.pixels(images).movedim(1, 0).int()
    return (torch.tensor(tab.evaluate("Array.from(bytes(player.frames.at(-1).x))")).view(due.shape) - due).abs().max()


def test_the_command_says_what_the_run_is_drawn_with_otherwise():
    model = model_of()
    own = replace(model, chain=Chain("ancestral", 9, variance="large", clip=False))
    assert [each["words"] for each in contents(own)["chains"]][::2] == [
        "--sampler unipc --steps 12 --clip", "--sampler ancestral --steps 50 --variance auto --clip",
    ]  # fmt: skip
    assert contents(model)["chains"][0]["words"] == "--sampler unipc --steps 12"


@pytest.mark.slow
@browsers.NO_BROWSER
class TestInTheBrowser:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_one_call_is_that_of_torch(self, opened, name):
        model = model_of((CONFIGS[name].get("in_channels", 1), 8, 8), **CONFIGS[name])
        times = torch.linspace(1, 100, 20).round().long().tolist()
        assert largest_difference(opened(model), model, times) < 1e-4

    @pytest.mark.parametrize("layout", [{}, CONFIGS["report"], CONFIGS["padding"]])
    def test_sides_of_one_pixel_stay(self, opened, layout):
        model = model_of((1, 1, 8), **layout)
        assert largest_difference(opened(model), model, [50]) < 1e-4

    @pytest.mark.parametrize("kind", ["vector", "image"])
    def test_conditions_are_those_of_held_out_images(self, opened, tmp_path, kind):
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
        values = {"image": images.astype(np.float32), "vector": np.stack((np.arange(40.0), np.arange(40.0) ** 2), 1)}
        pack({"images": images, "conditions": values[kind]}, tmp_path / "store", channels=1, held_out=0.25)
        store = str(tmp_path / "store")
        train = {"train__length": "1 step", "train__augment": 0.3, "train__condition_dropout": 0.5}
        loss = {"diffusion__learned_variance": True, "loss__objective": "hybrid"}
        config = tiny_config(store, data__source=store, data__condition="stored", **train, **loss)
        model = train_run(config, tmp_path / "run").run.model(device="cpu")
        shaken(model.denoiser.net)
        assert model.hides and model.conditions is not None
        tab = opened(model)
        assert largest_difference(tab, model, [1, 10, 20]) < 1e-4
        tab.locator("[name=chain]").select_option("2")
        tab.locator("[name=guidance]").fill("2")
        tab.click("#draw")
        tab.locator("#status", has_text="Done").wait_for()
        used, indices = chains_of(model)[2].changed(guidance=2), torch.arange(NUM)
        *_, last = rounded(model).draw(used, indices, model.condition(indices))
        assert largest_of_pixels(tab, model, last.x) <= 1

    def test_twelve_calls_give_the_pixels_of_torch(self, opened):
        model = model_of(**BY_CLASS)
        tab = opened(model, "#seed=0&guidance=1")
        tab.locator("#status", has_text="Done").wait_for()
        differences = tab.evaluate(
            """() => data.frames.flatMap((frame, k) => ["x", "x0"].map((name) => {
                const due = bytes(frame[name]), drawn = bytes(player.frames[k][name]);
                return Math.max(...due.map((value, i) => Math.abs(value - drawn[i])));
            }))"""
        )
        assert len(differences) == 2 * 13 and max(differences) <= 1

    @pytest.mark.parametrize("chain", [0, 1, 2])
    def test_each_sampler_with_class_seed_and_guidance_gives_the_pixels_of_torch(self, opened, chain):
        model = model_of(**BY_CLASS)
        tab = opened(model)
        tab.locator("[name=chain]").select_option(str(chain))
        tab.locator("[name=label]").select_option("1")
        tab.locator("[name=seed]").fill("7")
        tab.get_by_label("Guidance").fill("2.5")
        tab.locator("[name=seed]").press("Enter")
        tab.locator("#status", has_text="Done").wait_for()
        used = chains_of(model)[chain].changed(seed=7, guidance=2.5)
        indices = torch.arange(NUM)
        *_, last = rounded(model).draw(used, indices, model.condition(indices, 1))
        assert largest_of_pixels(tab, model, last.x) <= 1
        words = f"--seed 7 --sampler {used.sampler} --steps {used.steps} --label 1 --guidance 2.5"
        assert words in tab.inner_text("#command")

    def test_everybody_can_use_it(self, opened):
        screens = (390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")
        assert violations(opened(model_of(**BY_CLASS)), *screens) == []

    def test_the_slider_goes_through_the_frames_by_keyboard_and_drawing_stops(self, opened):
        tab = opened(model_of(), reduced_motion="reduce")
        slider, pictures = tab.locator("#time"), "document.getElementById('x').toDataURL()"
        last = tab.evaluate(pictures)
        slider.focus()
        slider.press("Home")
        assert "call 1 of 12" in tab.inner_text("#where") and tab.evaluate(pictures) != last
        slider.press("End")
        assert tab.evaluate(pictures) == last
        tab.locator("[name=chain]").select_option("2")
        tab.click("#draw")
        slider.press("Home")
        tab.click("#draw")
        assert tab.inner_text("#status") == "Stopped."


@pytest.mark.parametrize("sampler", ["unipc", "ddim", "ancestral", "dpmpp_2m_sde", "heun"])
def test_a_chain_as_sums_is_the_chain(sampler):
    chain, x_T = Chain(sampler, 5, clip=False), torch.randn(1, 1, 2, 2, dtype=torch.float64)
    described, vectors = as_linear(chain, PROCESS), [x_T]
    model = model_of()
    noise = [normal(Key(0, "sample", t, torch.arange(1)), (1, 2, 2)).double() for t in described["noise"]]

    def total(terms, vectors):
        return sum(factor * vectors[place] for place, factor in terms)

    number = len(described["calls"])
    vectors += [torch.zeros_like(x_T)] * number + noise
    for k, call in enumerate(described["calls"]):
        vectors[k + 1] = torch.tanh(total(call["x"], vectors) * call["t"] / 50)

    def denoise(x, t):
        x0 = torch.tanh(x * t / 50)
        return Prediction(x0, x0)

    *_, last = draw(denoise, model.process, x_T, torch.arange(1), chain)
    assert torch.allclose(last.x, total(described["end"], vectors), atol=1e-12)


def test_networks_of_ones_own_are_refused(tmp_path):
    class Own(torch.nn.Module):
        def forward(self, x, t, label=None):
            return x

    model = Model.of(Own(), PROCESS, (1, 8, 8))
    with pytest.raises(UserError) as refused:
        write_live(model, tmp_path / "live.html")
    assert (refused.value.key, refused.value.given) == ("live", Own.__qualname__)


def test_the_command_writes_the_page_of_one_run_alone(trained, command, refused, tmp_path):
    run, _ = trained()
    status, out, _ = command("report", run.path, "--live")
    assert status == 0 and str(run.path / "live.html") in out
    assert command("report", run.path, "--live", "--out", run.path / "live.html")[0] == 0
    refused(command("report", run.path, run.path, "--live"), "--live")
    refused(command("report", run.path, "--live", "--num", 8), "--live")
