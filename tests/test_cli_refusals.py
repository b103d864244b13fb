"""What `unstir evaluate`, `likelihood` and `report` refuse, they refuse before any work: nothing is trained, drawn or
written, in the run or in the store."""

import hashlib
import importlib
import json
import os
import pkgutil
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import copied, tiny_config
from unstir.data import Store
from unstir.data.manifest import sealed
from unstir.diffusion import samplers
from unstir.metrics import classifier, drawn
from unstir.metrics import likelihood as bounding
from unstir.runs.checkpoint import file_name
from unstir.train import held_out

NOBODY = 65534


@pytest.fixture(scope="module")
def base(digits):
    """Folders that another user may read: a tiny run, a second one that was judged, and their store."""
    from unstir.train.launch import open_data, open_run
    from unstir.train.trainer import Trainer

    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    copied(digits, base / "digits")
    for name in ("run", "other"):
        config = tiny_config(base / "digits", data__source=str(base / "digits"))
        run = open_run(config, base / name, open_data(config, base / name))
        Trainer(run, Store.open(base / "digits")).run()
    yield base
    shutil.rmtree(base)


@pytest.fixture
def place(base, monkeypatch):
    """A copy of it, in which any work is an error."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    shutil.copytree(base, place, dirs_exist_ok=True)
    for name in ("run", "other"):
        file = place / name / "config.toml"
        file.write_text(file.read_text().replace(f'store = "{base}', f'store = "{place}'))  # the source may not change
    for module, name in (
        (classifier, "train_classifier"),
        (drawn, "save_images"),
        (drawn, "sample_batches"),
        (held_out, "HeldOutLoss"),
        (bounding, "bounds_of"),
    ):
        monkeypatch.setattr(module, name, lambda *given, name=name, **options: pytest.fail(f"{name} was called"))
    yield place
    for folder in (place, *place.rglob("*")):
        if folder.is_dir():
            folder.chmod(0o755)
    shutil.rmtree(place)


def tree(place):
    """Every file and folder with the hash of what it holds."""
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in place.rglob("*")
    }


@contextmanager
def read_only(*folders):
    """The folders and all in them without the right to write, for a process that is not root's."""
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        for sampler in pkgutil.iter_modules(samplers.__path__):  # found when they are needed, which nobody may not
            importlib.import_module(f"{samplers.__name__}.{sampler.name}")
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def inverted(place):
    file = place / "digits" / "train.images.npy"
    content = bytearray(file.read_bytes())
    content[128:] = bytes(255 - byte for byte in content[128:])
    file.write_bytes(content)


def another_store(place):
    shutil.copytree(place / "digits", place / "another")
    manifest = place / "another" / "manifest.json"
    values = json.loads(manifest.read_text())
    manifest.write_bytes(sealed({**values, "content_hash": "0" * 64}))


def damaged(*steps):
    def damage(place):
        for folder in ("checkpoints", "weights"):
            for step in steps:
                file = place / "run" / folder / file_name(step)
                if file.exists():
                    file.write_bytes(file.read_bytes()[:-9])

    return damage


def without_weights(place):
    for folder in ("checkpoints", "weights"):
        shutil.rmtree(place / "run" / folder)


def a_file_in_the_way(name):
    return lambda place: (place / "run" / name).write_text("a file")


def judged(**changes):
    """The other run has been judged by nearly the usual protocol."""

    def judge(place):
        from unstir.metrics.drawn import Drawn, usual_chain
        from unstir.metrics.evaluation import Evaluation, save
        from unstir.metrics.figures import Figure
        from unstir.metrics.plan import Plan
        from unstir.runs.run import Run

        run, store = Run.open(place / "other"), Store.open(place / "digits")
        images = Drawn(run=run, model=run.model(12, dtype="auto"), chain=usual_chain(run))
        plan = Plan(images=images, store=store, num=24, seeds=2)
        protocol = {**plan.protocol(), **changes}
        figures = {"patches/swd": Figure(name="x", better="lower", by_seed=(1.0, 2.0))}
        made = {"step": 12, "images": 96, **images.model.marks}
        save(run, Evaluation(**made, protocol=protocol, figures=figures))

    return judge


def nothing(place):
    pass


SMALL = ("--num", 24, "--seeds", 2, "--batch-size", 16)
EVALUATE = {
    "no run": (nothing, ("--against", "{}/digits"), "is a store"),
    "eleven images": (nothing, ("--num", 11), "--num 11 must be at least 12"),
    "no seeds": (nothing, ("--seeds", 0), "--seeds 0 must be "),
    "no batch": (nothing, ("--batch-size", 0), "--batch-size 0 is outside"),
    "a reference too small": (nothing, ("--reference", 23), "--reference 23 is outside 24..1498"),
    "a reference too large": (nothing, ("--reference", 1499), "--reference 1499 is outside 24..1498"),
    "a label": (nothing, ("--label", 3), "knows no classes"),
    "a sampler": (nothing, ("--sampler", "best"), "sampler"),
    "too many steps": (nothing, ("--steps", 21), "21"),
    "a device": (nothing, ("--device", "cuda:99"), "cuda"),
    "a step that was not saved": (nothing, ("--checkpoint", 5), "--checkpoint 5 was not saved"),
    "a step in words": (nothing, ("--checkpoint", "first"), "--checkpoint first must be newest"),
    "no weights": (without_weights, (), "no weights of its own"),
    "a damaged step": (damaged(12), ("--checkpoint", 12), "damaged"),
    "a damaged step among all": (damaged(8), ("--checkpoint", "all"), "damaged"),
    "raw weights that were not kept": (lambda p: shutil.rmtree(p / "run/checkpoints"), ("--no-ema",), "averages alone"),
    "a guide that is damaged": (damaged(8), ("--guide", 8, "--guidance", 2), "damaged"),
    "no Inception": (nothing, ("--fid-weights", "{}/no-file"), "no-file"),
    "a file that is not Inception": (nothing, ("--fid-weights", "{}/run/config.toml"), "config.toml holds neither"),
    "no store": (nothing, ("--store", "{}/nowhere"), "nowhere"),
    "a store that has gone": (lambda place: shutil.rmtree(place / "digits"), (), "use --store"),
    "another store": (another_store, ("--store", "{}/another"), "is not the data of"),
    "an inverted store": (inverted, (), "changed or damaged"),
    "a file for a folder of images": (a_file_in_the_way("generated"), (), "is a file"),
    "a file for a folder of figures": (a_file_in_the_way("evaluation"), (), "is a file"),
    "itself": (nothing, ("--against", "{}/run"), "is the run itself"),
    "a run not judged": (nothing, ("--against", "{}/other"), "has not been evaluated"),
    "a run judged by other seeds": (judged(seeds=7), ("--against", "{}/other"), "seeds is 2 and 7"),
}  # fmt: skip


def asked(place, command, name, options, small):
    """The command with ``options`` in place of what it has in common with the small ones, and what it said."""
    given = dict(zip(small[::2], small[1::2], strict=True))
    if options != ("--no-ema",):
        given, options = given | dict(zip(options[::2], options[1::2], strict=True)), ()
    words = [str(part).replace("{}", str(place)) for pair in given.items() for part in pair]
    return command(name, place / "run", *words, *options)


def refused(answer, words):
    status, out, err = answer
    assert status == 2 and words in err and "Traceback" not in err and out == "", answer
    assert len([line for line in err.splitlines() if line.startswith("unstir: ")]) == 1, err


LIKELIHOOD = {
    "an inverted store": (inverted, (), "changed or damaged"),
    "one call": (nothing, ("--calls", 1), "--calls 1 is outside 2..20"),
    "too many images": (nothing, ("--num", 300), "--num 300 is outside 1..299"),
    "a class of the data": (nothing, ("--label", 3), "--num, --out and --split both"),
    "a damaged step": (damaged(12), ("--checkpoint", 12), "damaged"),
    "a file for a folder": (a_file_in_the_way("likelihood"), (), "is a file"),
    "a folder in a file": (nothing, ("--out", "{}/run/config.toml/there"), "cannot be made: "),
}  # fmt: skip


REPORT = {
    "eight images": (nothing, ("--num", 8), "--num 8 must be at least 12"),
    "an inverted store": (inverted, (), "changed or damaged"),
    "a damaged step": (damaged(12), (), "damaged"),
    "a page in a file": (nothing, ("--out", "{}/run/config.toml/page.html"), "cannot be made: "),
    "a file for a folder of figures": (a_file_in_the_way("evaluation"), (), "is a file"),
    "a page of another kind": (nothing, ("--out", "{}/new/x.pdf"), "x.pdf must end in .html"),
    "a folder for a page": (lambda p: (p / "new.html").mkdir(), ("--out", "{}/new.html"), "is a folder; name a file"),
    "figures of another kind": (nothing, ("--export", "{}/new/x.xlsx"), "is no .csv, .md, .tex file"),
    "figures in a file": (nothing, ("--export", "{}/run/config.toml/x.csv"), "cannot be made: "),
}
CASES = {"evaluate": (EVALUATE, SMALL), "likelihood": (LIKELIHOOD, ("--num", 16)), "report": (REPORT, ("--num", 24))}


def with_its_package(name, case):
    """The case, slow where it needs another package."""
    return pytest.param(name, case, marks=[pytest.mark.slow] if "Inception" in case else [])


@pytest.mark.parametrize(
    ("name", "case"), [with_its_package(name, case) for name, (cases, _) in CASES.items() for case in cases]
)
def test_a_mistake_is_refused_before_any_work(place, command, name, case):
    cases, small = CASES[name]
    spoil, options, words = cases[case]
    spoil(place)
    before = tree(place)
    refused(asked(place, command, name, options, small), words)
    assert tree(place) == before


def test_a_second_run_is_refused_before_the_first_is_measured(place, command):
    shutil.copytree(place / "run", place / "second")
    for folder in ("checkpoints", "weights"):
        for file in (place / "second" / folder).iterdir():
            file.write_bytes(file.read_bytes()[:-9])
    before = tree(place)
    status, out, err = command("report", place / "run", place / "second", "--num", 24)
    assert status == 2 and "damaged" in err and out == "" and tree(place) == before
    refused(command("report", place / "none"), "does not exist")


@pytest.mark.parametrize(
    ("name", "options", "folder"),
    [
        ("evaluate", SMALL, "run"),
        ("likelihood", ("--num", 16, "--out", "{}/out/there"), "out"),
        ("report", ("--num", 24, "--out", "{}/out/page.html"), "out"),
    ],
)
def test_a_folder_without_the_right_to_write_is_refused_before_any_work(place, command, name, options, folder):
    (place / "out").mkdir()
    before = tree(place)
    with read_only(place / folder):
        answer = command(name, place / "run", *(str(option).replace("{}", str(place)) for option in options))
    refused(answer, " cannot be written: Permission denied; name another")
    assert tree(place) == before
