"""The page of a run, and of images that any program made."""

import csv
import re
import shlex
import shutil
from functools import partial

import pytest
import reported
from reported import parsed, text_of

from conftest import copied
from unstir.cli import app
from unstir.data import Store
from unstir.insight import compared, page, pictures
from unstir.insight.analysis import analyse
from unstir.insight.doctor import CHECKS, examine
from unstir.insight.gather import gather
from unstir.insight.write import write_images_report, write_report
from unstir.metrics.evaluation import pairs_file, saved
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.metrics.request import EvaluationRequest
from unstir.pictures.grid import to_picture
from unstir.runs import build
from unstir.runs.run import Run
from unstir.significance import with_error

pytestmark = pytest.mark.usefixtures("quick")
run, other, store, report = reported.run, reported.other, reported.store, reported.report


def test_the_page_has_what_was_asked_of_it(report, run):
    tree = parsed(report)
    ids = {element.get("id") for element in tree.iter()}
    wanted = "analysis grids trajectory quality calls neighbours training forward data cost curves losses loss-by-time "
    wanted += "doctor settings classes worst limitations"
    assert set(wanted.split()) <= ids
    text = " ".join(tree.itertext())
    facts = gather(run.path, samples=False)
    assert f"{build.num_parameters(facts.config):,}" in text and run.data.content_hash in text
    assert facts.last is not None and with_error(facts.last.main().value, facts.last.main().error) in text


def test_a_person_in_a_hurry_sees_sentences_then_pictures_then_figures_then_all_that_can_be_said(report):
    tree = parsed(report)
    order = [element.get("id") for element in tree.iter("section")]
    listed = [link.get("href")[1:] for link in next(tree.iter("nav")).iter("a")]
    assert order == listed and order[0] == "grids"
    assert order.index("grids") < order.index("quality") < order.index("analysis") < order.index("limitations")
    header = next(tree.iter("header"))
    said = header.findall("ul/li")  # beside those of the problems and of the list of sections
    facts = gather(report.parent, samples=False)
    findings = examine(facts).findings
    assert len(said) == 3 < len(analyse(facts, findings))
    problems = [finding for finding in findings if finding.severity == "problem"]
    assert len(header.findall("div/ul/li")) == len(problems) > 0


def test_all_moments_stand_side_by_side_and_real_images_beside_samples(report, run):
    grids = next(element for element in parsed(report).iter("section") if element.get("id") == "grids")
    captions = ["".join(element.itertext()) for element in grids.iter("figcaption")]
    assert f"after {12 * 8} training" in captions[0] and captions[1].startswith("Real images")
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
    assert text.count(older) >= 2
    compared.write([known, other], [store, store], path)
    named = ["".join(table.itertext()) for table in parsed(path).iter("table")]
    named = [text for text in named if f"run (step {last})" in text]
    assert named and all("FD-classifier" in text for text in named)  # curves, cost and grids are of the run's end


def test_the_page_names_every_check_that_was_not_made_and_how_to_make_it(report, run):
    section = next(element for element in parsed(report).iter("section") if element.get("id") == "doctor")
    checked, skipped = "".join(section.itertext()).split("Checked: ")[1].split("Not checked: ")
    names = {text: set(re.findall(r"[a-z]+(?:-[a-z]+)*", text.split(" (")[0])) for text in (checked, skipped)}
    assert names[checked] | names[skipped] == set(CHECKS) and {"brightness", "collapse"} <= names[skipped]


def test_classes_have_their_names_real_images_and_samples(report, run):
    section = next(element for element in parsed(report).iter("section") if element.get("id") == "classes")
    rows = [list(row) for row in next(section.iter("tbody"))]
    assert ["".join(row[0].itertext()) for row in rows] == list(run.data.classes)
    assert all(len(list(row[1].iter("img"))) == 1 for row in rows)
    assert sum(len(list(row[2].iter("img"))) for row in rows) >= 2


def test_a_run_without_anything_measured_has_a_page_that_says_so(run, store, tmp_path):
    odd = shutil.ignore_patterns("evaluation", "held_out*", "samples")
    bare = Run.open(shutil.copytree(run.path, tmp_path / "bare run", ignore=odd))
    path = tmp_path / "bare.html"
    page.write(bare, None, path)
    codes = ["".join(code.itertext()) for code in parsed(path).iter("code")]
    commands = [shlex.split(code) for code in codes if code.startswith("unstir ")]
    assert {words[1] for words in commands} >= {"doctor", "evaluate", "report", "train"}
    for words in commands:
        assert str(bare.path) in words and app.parse_args(words[1:], exit_on_error=False, print_error=False)
    text = " ".join(parsed(path).itertext())
    assert text.count("Not evaluated") == text.count("Not measured") == 1 and "Nearest images" not in text
    page.write(bare, store, path)
    text = " ".join(parsed(path).itertext())
    assert "the classifier" not in text
    (bare.path / "metrics.jsonl").unlink()
    for folder in ("checkpoints", "weights"):
        shutil.rmtree(bare.path / folder)
    page.write(bare, None, path)
    assert "was logged" in " ".join(parsed(path).itertext())


def test_commands_name_the_run_and_nothing_of_a_sentence_is_markup():
    shown = page.with_code("a < b; `unstir RUN <y> num=1` in RUN, 1 ± 2", "my run & co")
    words = re.sub("</?span>", "", shown)
    assert words == "a &lt; b; <code>unstir &#39;my run &amp; co&#39; &lt;y&gt; --num 1</code> in RUN, 1\xa0±\xa02"


def test_ticks_of_charts_are_numbers(report):
    charts = ["".join(e.itertext()) for e in parsed(report).iter() if str(e.tag).endswith("svg")]
    assert len(charts) >= 5 and not any("mathdefault" in text or "$" in text for text in charts)


def test_names_from_outside_are_escaped(run, other, store, tmp_path):
    odd = tmp_path / "<i>caf\u202e\x1b[31m<i>"
    shutil.copytree(run.path, odd)
    page.write(Run.open(odd), store, tmp_path / "page.html")
    compared.write([Run.open(odd), other], [store, store], tmp_path / "both.html")
    for path in (tmp_path / "page.html", tmp_path / "both.html"):
        assert r"<i>caf\u202e\x1b[31m<i>" in text_of(path) and not list(parsed(path).iter("i"))


def test_figures_of_other_weights_and_damaged_ones_are_left_out_and_said(run, other, store, tmp_path, command):
    shutil.copytree(run.path, tmp_path / "run")
    folder, last = tmp_path / "run" / "evaluation", gather(run.path, samples=False).last
    theirs = {it.name(): it for it in saved(other)}[last.name()]
    (folder / f"{last.name()}.json").write_bytes((other.path / "evaluation" / f"{theirs.name()}.json").read_bytes())
    damaged = next(path for path in folder.glob("step1-*.json"))
    for path in (damaged, tmp_path / "run" / "speed.json"):
        path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    bound = partial(save_likelihood, store=store, protocol=Protocol(num=8, calls=2))
    _, curve = bound(other.model(12), folder=tmp_path / "run" / "likelihood")
    known = gather(tmp_path / "run", samples=False)
    assert known.bound is None and any(str(curve.parent) in text for text in known.left_out)
    bound(run.model(12), folder=tmp_path / "run" / "likelihood")
    assert gather(tmp_path / "run", samples=False).bound.protocol["weights"] == run.model(12).weights_sha256
    assert last.name() not in {it.name() for it in (*known.by_step, *known.by_chain)} and known.speed is None
    (finding,) = [it for it in examine(known).findings if it.check == "figures"]
    page.write(Run.open(tmp_path / "run"), store, path := tmp_path / "page.html")
    compared.write([Run.open(tmp_path / "run"), other], [store, store], both := tmp_path / "both.html")
    for name in (f"{last.name()}.json is of weights that", f"{damaged.name} is damaged", "speed.json is damaged"):
        assert all(name in text for text in (finding.evidence, text_of(path), text_of(both)))
    assert with_error(theirs.main().value, theirs.main().error) not in text_of(path)


def test_pictures_of_other_weights_or_another_run_are_left_out_and_said(run, other, store, tmp_path, caplog):
    shutil.copytree(run.path, tmp_path / "run")
    mine, last = Run.open(tmp_path / "run"), gather(run.path, samples=False).last
    pairs, noise = pairs_file(mine, last), mine.samples / "noise.png"
    assert pictures.pairs(mine, last) and not gather(mine.path, samples=False).left_out
    grids = len(pictures.snapshots(mine))
    shutil.copy(next((other.path / "evaluation").glob("*-pairs.png")), pairs)
    shutil.copy(other.samples / noise.name, noise)
    assert pictures.pairs(mine, last) is None and len(pictures.snapshots(mine)) == grids - 1
    write_report([mine.path], tmp_path / "page.html", measuring=False)
    for file in (pairs, noise):
        assert str(file) in text_of(tmp_path / "page.html") and str(file) in caplog.text


@pytest.fixture(scope="module")
def place(classified, tmp_path_factory):
    """A store, and held-out images of it in a folder of each class."""
    base = tmp_path_factory.mktemp("page")
    store = Store.open(copied(classified, base / "digits", classifier=True))
    labels = store.labels("held_out")
    for number, image in enumerate(store.images("held_out")[:60]):
        (folder := base / "made" / store.classes[labels[number]]).mkdir(parents=True, exist_ok=True)
        to_picture(image).save(folder / f"{number}.png")
    return base


def test_the_page_of_a_folder_shows_the_figures_of_its_evaluation(place, command):
    before = saved(Store.open(place / "digits"))  # by tests that judge by the same data
    status, out, err = command(
        "report", "--images", place / "made", "--store", place / "digits", "--export", place / "figures.csv"
    )
    assert status == 0 and f"report   {place / 'made' / 'report.html'}" in out, err
    (made,) = (each for each in saved(Store.open(place / "digits")) if each not in before)
    tree = parsed(place / "made" / "report.html")
    ids = {element.get("id") for element in tree.iter()} - {None}
    wanted = {"grids", "quality", "classes", "worst", "neighbours", "analysis", "limitations", "data", "settings"}
    assert wanted <= ids and not ids & {"training", "cost", "doctor", "trajectory", "curves"}
    assert all(element.get("href", "#")[1:] in ids | {""} for element in tree.iter("a"))
    text = " ".join(" ".join(tree.itertext()).split())
    main = made.main()
    assert with_error(main.value, main.error) in text
    assert "over seeds" not in text
    assert made.protocol["images"] in text
    assert not re.search(r"\bRUN\b|sampler", text)
    rows = list(csv.DictReader((place / "figures.csv").read_text().splitlines()))
    assert {row["figure"]: float(row["value"]) for row in rows} == {f.name: f.value for f in made.figures.values()}
    assert {row["step"] for row in rows} == {""} and {row["protocol.images"] for row in rows} == {
        made.protocol["images"]
    }


def test_without_a_search_for_copies_nothing_is_said_of_them(place, tmp_path):
    request = EvaluationRequest(store=place / "digits", memorisation=False, seeds=2)
    page, table, *_ = write_images_report([place / "made"], request, tmp_path / "a.html", exported=tmp_path)
    text = " ".join(parsed(page).itertext())
    assert "Nearest training" not in text and "2 x 30" in text
    assert table.name == "figures.csv" and (tmp_path / "figures.tex").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "either a run or images must be named"),
        (("{}/run", "--images", "{}/made"), "either a run or images must be named"),
        (("{}/run", "--flip"), "--label and --flip are of --images"),
        (("--images", "{}/made"), "--store is needed"),
        (("--images", "{}/made", "--store", "{}/digits", "--out", "{}/page.pdf"), "must end in .html"),
        (("--images", "{}/made", "--store", "{}/digits", "--no-measure"), "are of runs; leave them out"),
        (("--images", "{}/digits", "--store", "{}/digits"), "is a store"),
    ],
)
def test_mistakes_are_one_line(place, command, refused, options, words):
    refused(command("report", *(each.replace("{}", str(place)) for each in options)), words)
