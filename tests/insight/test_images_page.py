"""The page of images that any program made: the figures of their evaluation, and the same rules as a run's page."""

import csv
import re

import pytest
from reported import parsed

from conftest import copied
from unstir.data import Store
from unstir.insight.write import write_images_report
from unstir.metrics.evaluation import saved
from unstir.metrics.request import EvaluationRequest
from unstir.pictures.grid import to_picture
from unstir.significance import with_error

pytestmark = pytest.mark.usefixtures("quick")


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
        (
            ("--images", "{}/made", "--store", "{}/digits", "--no-measure"),
            "are of runs; leave them out",
        ),
        (("--images", "{}/digits", "--store", "{}/digits"), "is a store"),
    ],
)
def test_mistakes_are_one_line(place, command, refused, options, words):
    refused(command("report", *(each.replace("{}", str(place)) for each in options)), words)
