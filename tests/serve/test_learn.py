"""The chapters in headless Chromium: pictures and numbers are the library's, exercises are checked."""

import base64
import statistics
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import serving
import torch

import browsers
from refusals import refusing
from unstir.chain import Chain
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.draw import starting_noise
from unstir.diffusion.guidance import guided
from unstir.diffusion.loss import denoising_loss
from unstir.progress import shown_by
from unstir.runs.run import Run
from unstir.serve import chapters
from unstir.serve.chapters import ChapterValues
from unstir.serve.editing import PictureValues
from unstir.serve.examples import Examples, examples
from unstir.serve.exercises import ExerciseValues, check
from unstir.serve.state import State, Values
from unstir.theory.process import Process
from unstir.theory.schedule import linear, times

browser, server, tab = browsers.browser, serving.server, serving.tab
CHAPTERS = "forward", "posterior", "predict", "reverse", "guidance"
HASH = "#model=digits&image=3&seed=5&t="
CANVAS = """(name) => {
    const canvas = document.querySelector(`[data-picture=${name}], canvas#${name}`);
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    copy.getContext("2d", { willReadFrequently: true }).drawImage(canvas, 0, 0);
    const pixels = copy.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return Array.from(pixels).filter((_, i) => i % 4 === 0);
}"""


@pytest.fixture(scope="module")
def run():
    return "shipped:digits"


@pytest.fixture(scope="module")
def digits_model():
    return Run.open("shipped:digits").model(device="cpu")


def at(page, t):
    """The page once it shows the time t, all places of its slider being there."""
    serving.until(page, f"document.querySelector('[name=t]')?.value === '{t}'")
    serving.until(page, "!document.getElementById('chapter').hasAttribute('aria-busy')")
    return page


def number(page, name):
    text = page.locator(f"[data-number={name}]").first.text_content()
    return float(text.strip("()").replace("−", "-"))


@torch.inference_mode()
def of_the_library(model, chapter, t):
    """Pictures and numbers of a chapter at t, by the functions that its formulas name."""
    process, index, label = model.process, torch.tensor([3]), torch.tensor([3])
    x_0, eps = examples(Run.open("shipped:digits"), 10)[0][3:4], starting_noise(5, index, model.shape)
    x_t = process.diffuse(x_0, t, eps)
    if chapter == "forward":
        x_t = Process(linear(1000)).diffuse(x_0, t, eps)
        return {"x": x_t, "eps": eps, "x0": x_0}, {"alpha": linear(1000).alpha(t), "snr": linear(1000).snr[t].item()}
    if chapter == "posterior":
        at_x_t, _, var = process.posterior_coefficients(t, t - 100)
        return {"mean": process.posterior(x_t, x_0, t, t - 100).mean}, {"at_x_t": at_x_t, "var": var}
    strong = model.denoise(label)(x_t, t)
    if chapter == "predict":
        noise = process.eps(x_t, strong.x0, t)
        errors = {"x0_error": (strong.x0.clamp(-1, 1) - x_0), "eps_error": noise - eps}
        return {"x0": strong.x0, "eps": noise}, {name: error.square().mean().item() for name, error in errors.items()}
    if chapter == "reverse":
        chain = Chain("ancestral", 50, variance="small", seed=5)
        steps = {step.t: step for step in model.draw(chain, torch.tensor([0]), label)}
        mean = process.posterior(steps[t].x, steps[t - 20].x0, t, t - 20).mean
        pictures = {"x": steps[t].x, "next": steps[t - 20].x, "x0": steps[t - 20].x0, "mean": mean}
        var = process.posterior_coefficients(t, t - 20)[2]
        return pictures, {"std": var**0.5, "mean_pixel": mean[0, 0, 4, 4].item()}
    weak = model.denoise(torch.tensor([10]))(x_t, t)
    mixed = guided(lambda *_: strong, lambda *_: weak, 4.0)(x_t, t).x0
    return {"strong": strong.x0, "weak": weak.x0, "guided": mixed}, {"guided_pixel": mixed[0, 0, 4, 4].item()}


@pytest.mark.slow
@browsers.NO_BROWSER
class TestInTheBrowser:
    def test_images_are_unstirred_on_the_first_page(self, tab, digits_model):
        page = tab("#model=digits")
        serving.until(page, "document.getElementById('time').value === '12'")
        *_, step = digits_model.draw(Chain("unipc", 12, guidance=2), torch.arange(10), torch.arange(10))
        last = page.evaluate(CANVAS, "x")
        shown = np.array(last).reshape(17, 44)
        assert np.abs(shown[:8, 9:17] - digits_model.pixels(step.x)[1, 0].numpy()).max() <= 1
        page.locator("#time").press("Home")
        assert "1000" in page.inner_text("#where") and page.evaluate(CANVAS, "x") != last
        page.locator("nav.cards a").first.click()
        assert "/forward#model=digits" in page.url

    @pytest.mark.parametrize("chapter", CHAPTERS)
    def test_what_a_chapter_shows_is_what_the_library_computes(self, tab, digits_model, chapter):
        options = {"forward": "&schedule=linear", "guidance": "&scale=4", "reverse": "&label=3"}.get(chapter, "")
        page = at(tab(chapter + HASH + f"600{options}"), 600)
        for key in ("", "ArrowRight"):
            before = page.evaluate("[...document.querySelectorAll('[data-picture]')].map((it) => it.toDataURL())")
            if key:
                page.locator("#time").press(key)
            t = 600 if not key else 580 if chapter == "reverse" else 620
            pictures, numbers = of_the_library(digits_model, chapter, t)
            for name, image in pictures.items():
                shown = np.array(page.evaluate(CANVAS, name)).reshape(8, 8)
                assert np.abs(shown - digits_model.pixels(image)[0, 0].numpy()).max() <= 1, name
            for name, value in numbers.items():
                assert number(page, name) == pytest.approx(value, rel=6e-3, abs=6e-4), name
        after = page.evaluate("[...document.querySelectorAll('[data-picture]')].map((it) => it.toDataURL())")
        assert before != after and f"t = {t}" in page.inner_text("#where")
        serving.until(page, f"location.hash.includes('t={t}')")
        assert f"t={t}" in page.locator(".chapters a").first.get_attribute("href")
        page.locator("#time").press("Home")
        assert ("t = 0" in page.inner_text("#where")) == (chapter == "forward")  # where no step leads back from

    @pytest.mark.parametrize(
        ("name", "chapter", "size"),
        [
            ("balance", "forward", lambda model, t: -abs(model.process.schedule.log_snr(t))),
            ("schedule", "forward", lambda model, t: -t),
            (
                "step",
                "posterior",
                lambda model, t: -abs(np.subtract(*model.process.posterior_coefficients(t, max(t - 100, 0))[:2])),
            ),
            ("noise", "predict", lambda model, t: of_the_library(model, "predict", t)[1]["eps_error"]),
            ("class", "reverse", lambda model, t: -abs(t - class_decided(model))),
            ("guidance", "guidance", lambda model, t: apart(model, t)),
        ],
    )
    def test_an_exercise_takes_the_right_answer_and_refuses_a_wrong_one(self, tab, digits_model, name, chapter, size):
        right = max(times(digits_model.process.schedule, 50)[:-1], key=lambda t: size(digits_model, t))
        page = at(tab(f"{chapter}{HASH}{right}{'&schedule=sigmoid' * (name == 'schedule')}"), right)
        exercise = page.locator(f"[data-exercise={name}]")
        exercise.get_by_role("button").click()
        exercise.locator(".right").wait_for()
        if name == "schedule":
            page.locator("[name=schedule]").select_option("linear")
            exercise.locator(".right").wait_for(state="hidden")  # it was of the other schedule
        else:
            page.locator("#time").press("End" if (right < 600) != (chapter == "reverse") else "Home")
        exercise.get_by_role("button").click()
        exercise.locator(".wrong").wait_for()

    def test_an_image_of_ones_own_goes_through_every_chapter(self, tab, tmp_path):
        (tmp_path / "grey.png").write_bytes(serving.png(np.full((20, 20), 100)))
        (tmp_path / "page.png").write_text("<svg onload=alert(1)>")
        page = at(tab("forward" + HASH + "500"), 500)
        page.locator("#own").set_input_files(tmp_path / "page.png")
        page.get_by_role("alert").filter(has_text="picture").wait_for()
        page.locator("#own").set_input_files(tmp_path / "grey.png")
        serving.until(page, f"({CANVAS})('x0').every((value) => value === 100)")
        page.locator(".chapters a").nth(2).click()
        serving.until(at(page, 500), f"({CANVAS})('x0').length === 64")
        assert page.locator("[name=image]:checked").get_attribute("value") == "own"

    def test_the_slider_does_not_wait(self, tab):
        page = at(tab("guidance#model=mnist&image=3&t=500"), 500)
        spent = page.evaluate(
            """async () => {
                const slider = document.getElementById("time"), spent = [];
                for (let place = 0; place < 50; place++) {
                    const began = performance.now();
                    slider.value = place;
                    slider.dispatchEvent(new Event("input"));
                    await new Promise(requestAnimationFrame);
                    spent.push(performance.now() - began);
                }
                return spent;
            }"""
        )
        print(f"slider to picture: median {statistics.median(spent):.0f} ms, worst {max(spent):.0f} ms")
        assert max(spent) < 1000

    @pytest.mark.parametrize("page_name", ["", *CHAPTERS])
    def test_a_page_fits_its_screen_and_everybody_can_use_it(self, tab, page_name):
        page = tab(f"{page_name}#model=digits")
        serving.until(page, "Number(document.getElementById('time').max) > 0 && !document.querySelector('[aria-busy]')")
        assert page.evaluate("document.documentElement.scrollHeight <= 720")
        assert serving.violations(page, (1280, "light"), (390, "dark")) == []


@cache
@torch.inference_mode()
def class_decided(model):
    """The time from which on the class of seed 5 stays the most probable, by Bayes' rule in terms of the images."""
    chain, classes, evidence = Chain("ancestral", 50, variance="small", seed=5), torch.arange(10), torch.zeros(10)
    t, x, seen = 1000, starting_noise(5, torch.tensor([0]), model.shape), []
    for step in model.draw(chain, torch.tensor([0]), torch.tensor([10])):
        if step.t:
            at_x_t, at_x_0, _ = model.process.posterior_coefficients(t, step.t)
            implied = (step.x - at_x_t * x) / at_x_0
            gained = model.process.schedule.snr[step.t] - model.process.schedule.snr[t]
            told = model.denoise(classes)(x.expand(10, -1, -1, -1), t).x0.clamp(-1, 1)
            evidence = evidence - gained / 2 * (implied - told).square().flatten(1).sum(1)
        seen.append((t, evidence.argmax().item()))
        t, x = step.t, step.x
    return next(t for place, (t, _) in enumerate(seen) if all(best == seen[-1][1] for _, best in seen[place:]))


@torch.inference_mode()
def apart(model, t):
    pictures, _ = of_the_library(model, "guidance", t)
    return (pictures["strong"] - pictures["weak"]).norm().item()


@pytest.mark.slow
def test_runs_without_classes_have_chapters_and_no_guidance(trained):
    run, _ = trained()
    state = State([run.path])
    given = ChapterValues(model=next(id for id, name in state.runs().items() if name == str(run.path)))
    counts = {len(list(chapter(state, given))) for chapter in (chapters.predict, chapters.reverse)}
    shown = next(chapters.images(state, given))
    assert len(counts) == 1 and len(shown["images"]) == 10 and shown["labels"] is None
    with refusing("guidance"):
        list(chapters.guidance(state, given))
    assert [line["t"] for line in chapters.opening(state, Values(model=given.model)) if "t" in line][-1] == 0


def test_a_chapter_is_computed_once(monkeypatch):
    state, given = State(), {"model": "digits", "pixels": base64.b64encode(bytes(64))}
    first = list(chapters.predict(state, ChapterValues(**given)))
    monkeypatch.setattr(Prediction, "__init__", None)
    assert list(chapters.predict(state, ChapterValues(**given))) == first
    steps = []
    with shown_by(lambda *_: nullcontext(lambda done, total: steps.append(done))):
        assert next(check(state, ExerciseValues(**given, exercise="noise", t=first[1]["t"])))["line"]
    assert len(steps) == len(first)  # at each, who has left ends it


def test_an_exercise_that_no_place_solves_says_so():
    values = ExerciseValues(model="digits", exercise="step", stride=1, t=500)
    answer = next(check(State(), values))
    assert not answer["right"] and "No t is right" in answer["line"]


def test_the_loss_leaves_out_what_is_missing(monkeypatch, digits_model):
    x_0, told, _ = examples(Run.open("shipped:digits"), 10)
    present = torch.rand(x_0.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    monkeypatch.setattr(chapters, "examples", lambda *_: Examples(x_0 * present, told, present))
    line = list(chapters.predict(State(), ChapterValues(model="digits", image=4, label=3)))[20]
    eps, at = starting_noise(0, torch.tensor([4]), digits_model.shape), torch.tensor([line["t"]])
    given = (x_0 * present)[4:5], at, eps, torch.tensor([3])
    due = denoising_loss(digits_model.denoiser, *given, present=present[4:5]).mse
    assert line["loss"] == pytest.approx(due.item(), rel=1e-5)


def test_pixels_that_are_no_image_are_refused():
    with refusing("pixels"):
        next(chapters.forward(State(), ChapterValues(model="digits", pixels="AAAA")))


def test_an_uploaded_image_is_read_as_data_are():
    state, picture = State(), np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    answer = next(chapters.own(state, PictureValues(model="digits", picture=state.take(serving.png(picture)))))
    assert base64.b64decode(answer["pixels"]) == picture.tobytes()
