"""The page of a run: whole, valid, quiet in a real browser, readable to everyone; and pages of several runs."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import html5lib
import pytest
import torch
from jinja2 import Environment, PackageLoader
from PIL import Image

from conftest import copied, tiny_config
from unstir.data import Store
from unstir.doctor import CHECKS
from unstir.errors import UserError
from unstir.metrics import measure as evaluating
from unstir.metrics.classifier import networks_for
from unstir.metrics.evaluate import Plan, evaluate
from unstir.metrics.evaluation import FID, saved
from unstir.metrics.figures import in_columns
from unstir.pictures.grid import grid
from unstir.report import compared, page, pictures, tables
from unstir.report.analysis import analyse
from unstir.report.files import browser as browser_there
from unstir.report.files import print_pdf
from unstir.report.gather import SPEED, gather, measure, planned, read_speed, time_samplers
from unstir.runs import checkpoint
from unstir.runs.lines import encode
from unstir.runs.run import Run
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick")
NO_BROWSER = pytest.mark.skipif(browser_there() is None, reason="no Chromium or Chrome on this machine")


@pytest.fixture(scope="module")
def store(classified, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported") / "digits"
    return Store.open(copied(classified, folder, classifier=True))


def train(store, out, **changes):
    config = tiny_config(
        store.path, **{"log__held_out_images": 16, "grids__log_spaced": 3, "data__source": str(store.path), **changes}
    )
    run = open_run(config, out, open_data(config, out))
    Trainer(run, store).run()
    return run


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A tiny run, judged at each saved step and by some chains."""
    made = train(store, tmp_path_factory.mktemp("runs") / "first")
    plans = planned(made, store, seconds=1, num=24, seeds=2)
    measure(made, store, (*plans.by_step, *plans.by_chain))
    time_samplers(made, plans)
    return made


@pytest.fixture(scope="module")
def other(store, tmp_path_factory):
    """Another of a higher learning rate, judged by the same protocol."""
    made = train(store, tmp_path_factory.mktemp("runs") / "second", train__lr=1e-3)
    plans = planned(made, store, seconds=1, num=24, seeds=2)
    measure(made, store, plans.by_step)
    return made


@pytest.fixture(scope="module")
def report(run, store):
    path = run.path / "report.html"
    page.write(run, store, path)
    return path


@pytest.fixture(scope="module")
def comparison(run, other, store):
    path = run.path / "comparison.html"
    compared.write([run, other], [store, store], path)
    return path


def parsed(path):
    """The page as a tree; html5lib's strict parser raises for any error in it."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_the_page_is_valid_and_needs_nothing_else(which, request):
    path = request.getfixturevalue(which)
    tree = parsed(path)
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids)), "an id is there twice"
    for element in tree.iter():
        for name in ("src", "href", "data", "poster", "srcset"):
            target = element.get(name, "")
            assert not target or target.startswith(("data:", "#")), f"{element.tag} {name}={target[:60]}"
            assert not target.startswith("#") or target[1:] in ids, f"{target} leads nowhere"
        for name in ("aria-labelledby", "for"):
            assert all(part in ids for part in element.get(name, "").split())
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "http-equiv" in text
    assert all(image.get("alt") for image in tree.iter("img"))


def text_of(path):
    return " ".join(" ".join(parsed(path).itertext()).split())


def test_the_page_has_what_was_asked_of_it(report, run):
    tree = parsed(report)
    ids = {element.get("id") for element in tree.iter()}
    wanted = {
        "analysis",
        "grids",
        "trajectory",
        "quality",
        "calls",
        "neighbours",
        "training",
        "forward",
        "data",
        "cost",
    }
    wanted |= {"curves", "losses", "loss-by-time", "doctor", "settings", "classes", "worst", "limitations"}
    assert wanted <= ids
    text = " ".join(tree.itertext())
    facts = gather(run, None)
    assert f"{facts.cost.parameters:,}" in text and run.data.content_hash in text
    assert facts.last is not None and tables.plus_minus(facts.last.main().value, facts.last.main().error) in text


def test_a_person_in_a_hurry_sees_sentences_then_pictures_then_figures_then_all_that_can_be_said(report):
    tree = parsed(report)
    order = [element.get("id") for element in tree.iter("section")]
    assert order == [part.id for part in page.PARTS if part.title and part.id in order] and order[0] == "grids"
    assert order.index("grids") < order.index("quality") < order.index("analysis") < order.index("limitations")
    header = next(tree.iter("header"))
    said = header.findall("ul/li")  # beside those of the problems and of the list of sections
    assert len(said) == 3 < len(analyse(gather(Run.open(report.parent), None)))
    problems = [finding for finding in gather(Run.open(report.parent), None).findings if finding.severity == "problem"]
    assert len(header.findall("div/ul/li")) == len(problems) > 0


def test_all_moments_stand_side_by_side_and_real_images_beside_samples(report, run):
    grids = next(element for element in parsed(report).iter("section") if element.get("id") == "grids")
    captions = ["".join(element.itertext()) for element in grids.iter("figcaption")]
    assert captions[0] == f"Samples after {12 * 8} training images, the first ones of a fixed seed: not chosen."
    assert captions[1].startswith("Real images")
    moments = captions[2:]
    assert moments[:2] == ["the noise", "untrained"]
    assert len(moments) == 2 + len(list(run.weights.iterdir())) and moments[-1] == f"{12 * 8:,} images"


def test_figures_of_an_older_step_than_the_run_are_named_where_they_are_read(report, run, other, store, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    for newest in (tmp_path / "run" / "evaluation").glob("step12-*.json"):
        newest.unlink()
    known, last = Run.open(tmp_path / "run"), max(each.step for each in saved(Run.open(tmp_path / "run")))
    assert 0 < last < 12
    page.write(known, store, path := tmp_path / "older.html")
    text = text_of(path)
    older = f"of step {last}, while the run is at step 12"
    assert text.count(older) >= 2 and f"the nearest images are {older}. unstir evaluate {known.path} " in text
    assert f"; of step {last}" in text and "while the run is at step" not in text_of(report)
    compared.write([known, other], [store, store], path)
    named = ["".join(table.itertext()) for table in parsed(path).iter("table")]
    named = [text for text in named if f"run (step {last})" in text]
    assert named and all("FD-classifier" in text for text in named)  # curves, cost and grids are of the run's end


def test_what_is_seen_first_and_what_pictures_show_is_said_in_full(report, run):
    text = text_of(report)
    head = "A diffusion model: a network that turns noise into new grey images of 8x8 pixels. It was trained on 1,498 "
    assert 0 < text.index(head) < text.index("FD-classifier")
    assert text.index("bits/dim, held out") < text.index("Bits per dimension (bits/dim) are what the model needs")
    assert f"Training finished after {run.length} steps. It took" in text and " imported – " in text
    assert "closest to training images, each with the nearest of these; right: the same of held-out" in text


def test_the_page_names_every_check_that_was_not_made_and_how_to_make_it(report, run):
    section = next(element for element in parsed(report).iter("section") if element.get("id") == "doctor")
    checked, skipped = "".join(section.itertext()).split("Checked: ")[1].split("Not checked: ")
    names = {text: set(re.findall(r"[a-z]+(?:-[a-z]+)*", text.split(" (")[0])) for text in (checked, skipped)}
    assert names[checked] | names[skipped] == set(CHECKS) and {"noise", "weights-loss"} <= names[skipped]
    assert f"unstir doctor {run.path} makes these checks" in skipped and "--no-samples" not in skipped
    assert f"unstir report {run.path} without --no-measure has them here" in skipped


def test_classes_have_their_names_real_images_and_samples(report, run):
    section = next(element for element in parsed(report).iter("section") if element.get("id") == "classes")
    rows = [list(row) for row in next(section.iter("tbody"))]
    assert ["".join(row[0].itertext()) for row in rows] == list(run.data.classes)
    assert all(len(list(row[1].iter("img"))) == 1 for row in rows)
    assert sum(len(list(row[2].iter("img"))) for row in rows) >= 2
    assert "by the class that the classifier predicts for them" in "".join(section.itertext())


def test_the_samplers_have_their_seconds_an_image(report, run):
    section = next(element for element in parsed(report).iter("section") if element.get("id") == "calls")
    rows = [["".join(cell.itertext()) for cell in row] for row in next(section.iter("tbody"))]
    timed = read_speed(run)
    assert len(rows) == len(gather(run, None).by_chain) == len(timed.seconds)
    assert all(float(row[3]) > 0 for row in rows) and timed.machine["device"] in "".join(section.itertext())
    (run.path / SPEED).rename(run.path / "kept")
    (run.path / SPEED).write_text('{"seconds": {"a": "b"}, "num": 1, "machine": {}, "date": ""}')
    assert read_speed(run) is None
    (run.path / "kept").rename(run.path / SPEED)


def test_what_is_measured_once_is_not_measured_again(run, store, monkeypatch):
    plans = planned(run, store, seconds=1, num=24, seeds=2)
    files = {path: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()}
    found = measure(run, store, (*plans.by_step, *plans.by_chain))
    assert {path: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()} == files
    facts = gather(run, store)
    assert [each.step for each in facts.by_step] == [1, 12]
    assert len(facts.by_chain) == len(plans.by_chain) + 1 and facts.last in found


def test_a_run_without_anything_measured_has_a_page_that_says_so(run, store, tmp_path):
    shutil.copytree(run.path, tmp_path / "bare", ignore=shutil.ignore_patterns("evaluation", "held_out*", "samples"))
    bare = Run.open(tmp_path / "bare")
    path = tmp_path / "bare.html"
    page.write(bare, None, path)
    text = " ".join(parsed(path).itertext())
    assert "Not evaluated yet" in text and "Nearest images" not in text
    (bare.path / "metrics.jsonl").unlink()
    for folder in ("checkpoints", "weights"):
        shutil.rmtree(bare.path / folder)
    page.write(bare, None, path)
    assert "No line was logged yet" in " ".join(parsed(path).itertext())


def test_names_from_outside_are_escaped(run, store, tmp_path):
    nasty = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(run.path, nasty)
    page.write(Run.open(nasty), store, tmp_path / "page.html")
    scripts = list(parsed(tmp_path / "page.html").iter("script"))
    assert len(scripts) == 1 and "alert" not in (scripts[0].text or "")


def test_a_name_that_no_page_can_hold_is_escaped(run, other, store, tmp_path):
    odd = tmp_path / "caf\u202e\x1b[31m"
    shutil.copytree(run.path, odd)
    page.write(Run.open(odd), store, tmp_path / "page.html")
    compared.write([Run.open(odd), other], [store, store], tmp_path / "both.html")
    for path in (tmp_path / "page.html", tmp_path / "both.html"):
        assert r"caf\u202e\x1b[31m" in text_of(path)


def test_commands_name_the_run_and_nothing_of_a_sentence_is_markup():
    said = page.with_code("a < b +- 1; `unstir evaluate RUN --x <y>` in RUN", "runs/my run & co")
    assert said == "a &lt; b ± 1; <code>unstir evaluate 'runs/my run &amp; co' --x &lt;y&gt;</code> in RUN".replace(
        "'", "&#x27;"
    )


def test_several_runs_are_compared_on_equal_figures(comparison, run, other):
    tree = parsed(comparison)
    text = " ".join(tree.itertext())
    assert "first" in text and "second" in text and "train.lr" in text
    cells = ["".join(cell.itertext()) for cell in tree.iter("td")]
    for each in compared.same_protocol([run, other]).alike:
        assert {texts.whole for texts in in_columns(each.figures.values())} <= set(cells)
    assert re.search(r"FD-classifier: (second is (better|worse) than first|whether second differs from first)", text)


def test_held_out_losses_of_runs_are_drawn_together_where_they_compare(comparison, run, other, store, tmp_path):
    chart, said = "held-out loss, sampling weights", "Held-out losses are drawn where"
    assert chart in comparison.read_text(encoding="utf-8") and said not in text_of(comparison)
    for number, changed in enumerate(({"diffusion__predict": "v"}, {"log__held_out_times": 3})):
        unlike = train(store, tmp_path / str(number), **changed)
        path = tmp_path / f"{number}.html"
        compared.write([run, unlike], [store, store], path)
        assert chart not in path.read_text(encoding="utf-8") and said in text_of(path)


def test_runs_that_were_judged_differently_are_shown_and_what_differs_is_said(run, other, store, tmp_path, command):
    shutil.copytree(other.path, tmp_path / "my other", ignore=shutil.ignore_patterns("evaluation"))
    unlike = Run.open(tmp_path / "my other")
    assert compared.same_protocol([run, unlike]).reasons == (f"{unlike.path} was not evaluated.",)
    plan = planned(unlike, store, seconds=1, num=20, seeds=2).by_step[-1]
    evaluate(unlike, store, plan)
    sides = compared.same_protocol([run, unlike])
    assert sides.alike == () and sides.reasons == (f"{unlike.path}: num is 20 and 24.",)
    compared.write([run, unlike], [store, store], tmp_path / "page.html")
    text = text_of(tmp_path / "page.html")
    assert "num is 20 and 24" in text and "train.lr" in text and sides.remedies[0] in text
    assert "first (step" not in text and text.count(", while training") == 2
    assert not any("FD-classifier" in "".join(cell.itertext()) for cell in parsed(tmp_path / "page.html").iter("th"))
    status, _, _ = command(*shlex.split(sides.remedies[0])[1:])
    assert status == 0 and len(compared.same_protocol([run, unlike]).alike) == 2


@pytest.mark.parametrize(
    "given", [("--sampler", "heun", "--steps", "5"), ("--no-ema", "--steps", "7", "--eta", "0.5", "--sampler", "ddim")]
)
def test_the_command_that_makes_figures_comparable_does(given, run, other, store, tmp_path, command):
    pair = []
    for source, name in ((run, "a"), (other, "b")):
        shutil.copytree(source.path, tmp_path / name, ignore=shutil.ignore_patterns("evaluation"))
        pair.append(Run.open(tmp_path / name))
    newest = pair[0].saved_steps()[-1]
    full = [step for step, _ in checkpoint.listed(pair[0].checkpoints)][-1]
    assert newest == full
    assert command("evaluate", pair[0].path, "--num", 20, "--seeds", 2, "--dtype", "float32", *given)[0] == 0
    (remedy,) = compared.same_protocol(pair).remedies
    assert command(*shlex.split(remedy)[1:])[0] == 0
    assert len(compared.same_protocol(pair).alike) == 2


def test_figures_of_inception_are_asked_for_by_its_option(run, other, monkeypatch):
    judged_before = saved(run)[-1]
    with_fid = replace(judged_before, figures={**judged_before.figures, FID: judged_before.main()})
    monkeypatch.setattr(compared, "saved", lambda of: [with_fid] if of is run else [])
    (remedy,) = compared.same_protocol([run, other]).remedies
    assert shlex.split(remedy)[:3] == ["unstir", "evaluate", str(other.path)] and remedy.endswith(" --fid")


def test_figures_of_another_average_are_asked_for_by_its_width(run, other, monkeypatch):
    before = saved(run)[-1]
    of_width = replace(before, protocol=before.protocol | {"ema": 0.08})
    monkeypatch.setattr(compared, "saved", lambda of: [of_width] if of is run else [])
    (remedy,) = compared.same_protocol([run, other]).remedies
    assert "--ema-width 0.08" in remedy and "averaged (width 0.08) weights" in tables.protocol(of_width)


def test_figures_of_other_data_or_of_a_network_that_knows_classes_have_no_command(run, other, tmp_path):
    for change, said in (({"content_hash": "0" * 64}, "two data sets"), ({}, "with classes")):
        own = replace(other, data=replace(other.data, **change))
        if not change:
            own = replace(other, config=replace(other.config, model=replace(other.config.model, num_classes=10)))
        shutil.copytree(other.path, tmp_path / said, ignore=shutil.ignore_patterns("evaluation"))
        sides = compared.same_protocol([run, replace(own, path=tmp_path / said)])
        assert sides.remedies == () and said in sides.reasons[0]


def test_names_that_charts_would_read_as_formulas_are_names(run, other, store, tmp_path):
    odd = []
    for source, name in ((run, "lr$1^$"), (other, "_hidden")):
        shutil.copytree(source.path, tmp_path / name)
        odd.append(Run.open(tmp_path / name))
    path = tmp_path / "page.html"
    compared.write(odd, [store, store], path)
    text = " ".join(" ".join(element.itertext()) for element in parsed(path).iter() if str(element.tag).endswith("svg"))
    assert "lr$1^$" in text and "_hidden" in text


def test_ticks_of_charts_are_numbers(report):
    charts = ["".join(e.itertext()) for e in parsed(report).iter() if str(e.tag).endswith("svg")]
    assert len(charts) >= 5 and not any("mathdefault" in text or "$" in text for text in charts)


def test_the_samples_of_a_page_are_those_that_were_judged(run, store, tmp_path):
    last = gather(run, None).last
    known = pictures.drawn_for(run, last)
    assert len(known.images) == 2 * 24 and known.asked is None
    again = evaluating.measure(store, list(known.images.split(24)), networks_for(store), labels=None)
    assert again["classifier/fd"].by_seed == last.figures["classifier/fd"].by_seed
    shutil.copytree(run.path, tmp_path / "run")
    for settings in (tmp_path / "run" / "generated").glob("*/settings.json"):
        if json.loads(settings.read_text())["chain"]["seed"] == 1:
            (settings.parent / "000000.png").unlink()
    assert pictures.drawn_for(Run.open(tmp_path / "run"), last) is None
    assert pictures.drawn_for(run, replace(last, weights="0" * 64)) is None


def test_classes_that_were_asked_for_are_read_from_the_settings_of_the_samples(store, tmp_path):
    made = train(store, tmp_path / "run", model__num_classes=10)
    plan = planned(made, store, seconds=1, num=40, seeds=2).by_step[-1]
    known = pictures.drawn_for(made, evaluate(made, store, plan))
    asked = made.labels.of(torch.arange(40), plan.job.label, plan.job.shares)
    assert torch.equal(known.asked, asked.repeat(2)) and len(set(asked.tolist())) > 5
    rows = pictures.by_class(store, known, None)
    assert [row.name for row in rows] == list(store.classes) and all(row.samples for row in rows)


def test_a_folder_of_samples_that_is_not_ours_is_passed_over(run, tmp_path):
    last = saved(run)[-1]
    shutil.copytree(run.path, tmp_path / "run")
    (odd := tmp_path / "run" / "generated" / "odd").mkdir()
    wrong = {"chain": {"sampler": "ddim", "steps": 10**6}, "step": 1, "label": None}
    for text in ("[" * 100_000, encode(wrong), json.dumps(wrong)):
        (odd / "settings.json").write_text(text)
        known = pictures.drawn_for(Run.open(tmp_path / "run"), last)
        assert known is not None and torch.equal(known.images, pictures.drawn_for(run, last).images)


@pytest.mark.parametrize("by", ["classifier", "pixels"])
def test_the_worst_samples_are_those_farthest_from_all_training_images(run, store, by):
    classifier = networks_for(store)[0] if by == "classifier" else None
    odd = torch.full((1, *store.shape), 255, dtype=torch.uint8)
    samples = torch.cat((store.images("train")[:20], odd, store.images("held_out")[:20]))
    found = pictures.worst(run.config.data.flip, store, pictures.Drawn(samples, None), classifier)
    assert found.samples == pictures.encode(grid(_worst_first(samples, odd, store, classifier), 8), "the worst samples")
    assert "16 of 41 samples" in found.how and f"{store.count('held_out')} held-out images" in found.how


def _worst_first(samples, odd, store, classifier):
    """The 16 samples of the largest distance to the training images, by brute force; the odd one is first."""
    spaces = [x if classifier is None else classifier.features(x) for x in (samples, samples.flip(-1))]
    train = store.images("train") if classifier is None else classifier.features(store.images("train"))
    each = [torch.cdist(x.flatten(1).double(), train.flatten(1).double()).min(1).values for x in spaces]
    far = torch.minimum(*each)  # the run mirrors half of its images
    order = far.argsort(descending=True, stable=True)[:16]
    assert torch.equal(samples[order[:1]], odd)
    return samples[order]


def test_of_many_classes_the_first_are_shown(store, tmp_path):
    many = replace(store, manifest={**store.manifest, "classes": [f"class {i}" for i in range(500)]})
    object.__setattr__(many, "labels", lambda split: torch.arange(store.count(split)) % 500)
    assert [each.name for each in pictures.by_class(many, None, None)] == [
        f"class {i}" for i in range(pictures.CLASSES)
    ]
    large = pictures.encode(Image.new("L", (10, 17_000)), "tall")
    assert large.source.startswith("data:image/png") and large.height == 17_000


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser_there(), args=["--no-sandbox"])
        yield opened
        opened.close()


@NO_BROWSER
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_real_browser_finds_nothing_to_complain_of(browser, which, width, scheme, request):
    from axe_playwright_python.sync_playwright import Axe

    path = request.getfixturevalue(which)
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    tab, complaints, requests = context.new_page(), [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"
    shown = tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert shown, "an image did not load"
    found = Axe().run(tab).response["violations"]
    assert [(rule["id"], [node["html"][:80] for node in rule["nodes"]]) for rule in found] == []
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []


@NO_BROWSER
@pytest.mark.parametrize("width", [360, 390, 1200])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_charts_and_tables_fit_the_screen_and_their_labels_are_whole(browser, which, width, request):
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.goto(request.getfixturevalue(which).as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    boxes = tab.evaluate(
        """[...document.querySelectorAll('svg.chart')].flatMap(svg => {
            const outer = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].map(text => {
                const box = text.getBoundingClientRect();
                return [text.textContent, box.left - outer.left, outer.right - box.right,
                        box.top - outer.top, outer.bottom - box.bottom, box.height,
                        outer.left, innerWidth - outer.right];
            });
        })"""
    )
    assert len(boxes) > 20
    for text, *room in boxes:
        assert min(room[:4]) > -1.5, f"{text!r} is cut: {room}"
        assert room[4] > 7.5, f"{text!r} is {room[4]} pixels high"
        assert min(room[5:]) >= 0, "the chart is wider than the screen"
    wide = tab.evaluate(
        "[...document.querySelectorAll('.scroll, figure')]"
        ".filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.getAttribute('aria-label') || e.textContent)"
    )
    assert wide == []
    tab.close()


@NO_BROWSER
def test_pictures_of_unlike_sizes_in_a_row_have_one_height_and_their_captions_one_line(browser, tmp_path):
    snapshots = [(f"{height} pixels", pictures.encode(Image.new("L", (150, height)), "a")) for height in (150, 170, 60)]
    templates = Environment(loader=PackageLoader("unstir.report"), autoescape=True)
    templates.filters |= dict.fromkeys(("code", "sentence"), str)
    drawn = templates.get_template("macros.html").make_module().strip(snapshots)
    css = templates.loader.get_source(templates, "report.css")[0]
    (tmp_path / "row.html").write_text(f"<style>{css}</style>{drawn}")
    tab = browser.new_page(viewport={"width": 900, "height": 800})
    tab.goto((tmp_path / "row.html").as_uri())
    box = "(each => (box => [box.top, box.bottom])(each.getBoundingClientRect()))"
    for which in ("img", "figcaption"):
        found = tab.evaluate(f"[...document.querySelectorAll('.moments {which}')].map{box}")
        assert len(found) == 3 and len({tuple(map(round, ends)) for ends in found}) == 1, found
        assert which == "figcaption" or found[0][1] - found[0][0] > 100
    tab.close()


@NO_BROWSER
def test_legends_hide_no_curve(browser, report):
    tab = browser.new_page(viewport={"width": 375, "height": 800})
    tab.goto(report.as_uri())
    hidden = tab.evaluate(
        """[...document.querySelectorAll('svg.chart')].filter(svg => {
            const legend = svg.querySelector('[id*="legend"]'), axes = svg.querySelector('[id*="-patch_2"]');
            return legend && legend.getBoundingClientRect().top < axes.getBoundingClientRect().bottom - 1;
        }).length"""
    )
    legends = tab.evaluate("document.querySelectorAll('svg.chart [id*=\"legend\"]').length")
    assert legends >= 4 and hidden == 0
    tab.close()


@NO_BROWSER
def test_without_scripts_all_is_there_and_print_hides_the_list_of_sections(browser, report):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(report.as_uri())
    assert tab.locator(".moments img").last.is_visible() and tab.locator("nav").is_visible()
    tab.emulate_media(media="print")
    assert tab.locator(".moments img").last.is_visible() and not tab.locator("nav").is_visible()
    context.close()


@NO_BROWSER
def test_it_prints_to_a_pdf(report, tmp_path):
    path = tmp_path / "report.pdf"
    print_pdf(report, path)
    data = path.read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 20_000


def test_without_a_browser_the_pdf_is_refused_with_the_remedy(report, tmp_path, monkeypatch):
    monkeypatch.setenv("UNSTIR_BROWSER", "no-such-browser")
    with pytest.raises(UserError, match="needs Chromium or Chrome, which was not found"):
        print_pdf(report, tmp_path / "report.pdf")
    false = shutil.which("false")
    monkeypatch.setenv("UNSTIR_BROWSER", str(false))
    with pytest.raises(UserError, match="did not print"):
        print_pdf(report, tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []


def test_unlabelled_data_is_judged_by_patches(store, tmp_path):
    from unstir.data import pack

    folder = tmp_path / "flat"
    folder.mkdir()
    for index, image in enumerate(store.images("train")[:120]):
        Image.fromarray(image[0].numpy()).save(folder / f"{index}.png")
    flat = pack(folder, tmp_path / "flat-store", channels=1, held_out=0.25)
    run = train(flat, tmp_path / "run")
    plan = planned(run, flat, seconds=1, num=20, seeds=2).by_step[-1]
    assert networks_for(flat) == [] and isinstance(plan, Plan)
    found = evaluate(run, flat, replace(plan, memorisation=True))
    assert list(found.figures) == ["patches/swd"] and found.main().floor < found.main().value < found.main().ceiling
    page.write(run, flat, tmp_path / "page.html")
    assert "sliced Wasserstein" in " ".join(parsed(tmp_path / "page.html").itertext())


def test_a_report_says_by_what_guidance_its_images_were_drawn(run):
    plain = saved(run)[-1]
    assert "guidance" not in tables.protocol(plain)
    led = replace(plain, protocol={**plain.protocol, "guidance": 2.0, "guide": "runs/small@8"})
    assert "5 steps, 5 calls, guidance 2 away from runs/small@8, " in tables.protocol(led)
