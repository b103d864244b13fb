"""The likelihood by several processes: each batch computed once, files and figures those of one, to the last bit."""

import json
import os
import signal
import time
from dataclasses import asdict

import pytest
import torch

from conftest import copied
from test_not_finite import spoil
from together import Together, together
from unstir import cli
from unstir.data import Store
from unstir.diffusion.likelihood import Bound
from unstir.distributed.join import joined
from unstir.distributed.place import LOST, place
from unstir.metrics import likelihood as module
from unstir.metrics.bounds import bounds_to_first
from unstir.metrics.likelihood import Protocol, likelihood, save_likelihood
from unstir.runs.run import Run


def commands(num, words, out):
    return Together(num, lambda rank: cli.main(["likelihood", *map(str, words)]), out)


def said(job):
    return [line for line in job.said().splitlines() if line.startswith("unstir: ")]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ALL_TERMS = ("--num", 40, "--batch-size", 12, "--split", "both")


@pytest.mark.parametrize(
    ("num", "options"), [(2, ALL_TERMS), (3, ALL_TERMS), (4, ("--num", 50, "--calls", 6)), (3, ("--num", 2))]
)
def test_files_and_figures_are_those_of_one(trained, command, tmp_path, num, options):
    run, _ = trained()
    status, out, _ = command("likelihood", run.path, *options)
    assert status == 0
    expected = files(run.path / "likelihood")
    (run.path / "likelihood").rename(tmp_path / "one")
    job = commands(num, (run.path, *options), tmp_path / "out")
    assert job.wait() == [0] * num, job.said()
    first, *others = ((tmp_path / f"out/{rank}.err").read_text() for rank in range(num))
    words = ("unstir", "bounding", "held_out", "train", "curve")  # torch may say that the store went before its watch
    assert first == out and not [line for other in others for line in other.splitlines() if line.startswith(words)]
    assert files(run.path / "likelihood") == expected and len(expected) == (3 if "both" in options else 2)


def test_batches_are_computed_once_in_turn_and_all_return_the_same(trained, tmp_path, monkeypatch):
    run, store = trained(model__num_classes=10, diffusion__learned_variance=True, loss__objective="hybrid")
    protocol = Protocol(num=70, batch_size=10, calls=7)
    expected = json.loads(json.dumps(asdict(likelihood(run.model(), store, protocol))))

    def work(rank):
        torch.set_num_threads(1 + rank)  # all compute with as many as the first
        computed, told, displays, bound = [], [], [], module._bound

        def counted(*given):
            computed.append((given[3], torch.get_num_threads()))
            return bound(*given)

        def showing(*words):
            displays.append(words)
            return module.silently(*words)

        for name in ("save", "_draw", "_make_writable") if rank else ():
            monkeypatch.setattr(module, name, lambda *_: pytest.fail("written by another than the first"))
        monkeypatch.setattr(module, "_bound", counted)
        found = likelihood(run.model(), store, protocol, progress=lambda *both: told.append(both))
        saved, curve = save_likelihood(run.model(), store, protocol=protocol, showing=showing)
        assert saved["held_out"] == found and curve.match("likelihood/step12-curve-held_out-7-calls-70-images-*.png")
        assert torch.get_num_threads() == 1 + rank
        return asdict(found), computed, told, displays

    by_three = together(3, work, tmp_path / "out")
    batches = 8  # an estimate is made in so many
    for rank, (found, computed, told, displays) in enumerate(by_three):
        own = list(range(rank, batches, 3))
        assert found == expected and found["num_samples"] == batches
        assert computed == [[number, 1] for number in own * 2]
        assert told == ([[done, 21] for done in range(1, 22)] if rank == 0 else [])
        assert displays == ([["bounding held_out", "network calls of one of 3 processes"]] if rank == 0 else [])


def test_what_is_sent_has_the_same_sums_to_the_last_bit(tmp_path):
    lengths, terms = [12, 38, 12, 7, 1], 59
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.rand(*shape, dtype=torch.float64, generator=generator)
    times = [tuple(range(2 + number, 2 + number + terms)) for number in range(len(lengths))]
    bounds = [
        Bound(random(num), random(num, terms), random(num), at, random(terms), 48)
        for num, at in zip(lengths, times, strict=True)
    ]

    def work(rank):
        with joined("cpu"):
            found = bounds_to_first(bounds[rank::2], lengths, terms)
        if rank:
            return []
        return [
            [
                torch.equal(getattr(a, each), getattr(b, each))
                for each in ("prior", "terms", "decoder", "weights", "nats")
            ]
            + [a.times == b.times, a.dims == b.dims]
            for a, b in zip(found, bounds, strict=True)
        ]

    assert together(2, work, tmp_path)[0] == [[True] * 7] * len(lengths)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--calls", 21), "--calls 21 is outside 2..20, the terms of the bound"),
        (("--num", 300), "--num 300 is outside 1..299"),
        (("--variance", "learned"), "a network that has learned it"),
        (("--out", "file"), "cannot make the folder file: "),
        (("--num", 2, "--out", "taken"), "taken/step12-held_out-2-images-"),
    ],
)
def test_a_mistake_ends_all_with_one_line(trained, tmp_path, monkeypatch, options, why):
    run, _ = trained()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if "taken" in options:  # by a folder of the file's name
        save_likelihood(run.model(), Store.open(run.config.data.store), protocol=Protocol(num=2), folder=tmp_path)
        (file,) = tmp_path.glob("*.json")
        (tmp_path / "taken" / file.name).mkdir(parents=True)
    before = sorted(run.path.rglob("*"))
    job = commands(2, (run.path, *options), tmp_path / "out")
    assert job.wait() == [2, 2], job.said()
    (line,) = said(job)
    assert why in line and "process" not in line and job.said().count("\n") == 1
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_one_alone_finds_wrong_ends_all_and_it_says_so(trained, tmp_path, at):
    run, store = trained()
    damaged = copied(store.path, tmp_path / "damaged")
    data = bytearray((damaged / "held_out.images.npy").read_bytes())
    data[-1] ^= 1
    (damaged / "held_out.images.npy").write_bytes(data)

    def work(rank):
        time.sleep(0.5 * (rank == at))  # the others have read theirs
        cli.main(["likelihood", str(run.path), "--num", "8", "--store", str(damaged if rank == at else store.path)])

    job = Together(3, work, tmp_path / "out")
    assert job.wait() == [2, 2, 2], job.said()
    (line,) = said(job)
    assert "the files were changed or damaged" in line and (f"process {at} of 3" in line) == (at > 0)
    assert not (run.path / "likelihood").exists()


@pytest.mark.parametrize(
    ("option", "values", "words"),
    [
        ("--calls", (5, 21), "calls is 21, not 5"),
        ("--split", ("train", "both"), "split is 'train, held_out', not 'train'"),
        ("--out", ("a", "b"), "out is 'b', not 'a'"),
        ("--batch-size", (8, 9), "batch_size is 9, not 8"),
        ("--checkpoint", (12, 8), "step is 8, not 12"),
    ],
)
def test_processes_that_were_asked_for_different_things_are_refused(trained, tmp_path, option, values, words):
    run, _ = trained()

    def work(rank):
        os.chdir(tmp_path)
        cli.main(["likelihood", str(run.path), option, str(values[rank])])

    job = Together(2, work, tmp_path / "out")
    assert job.wait() == [2, 2]
    (line,) = said(job)
    assert "process 1 of 2 (counted from 0) differs from the first: " in line and words in line
    assert "start all with the same options, run and data" in line
    assert not [*(run.path / "likelihood").glob("*"), *(tmp_path / "a").glob("*")]


@pytest.mark.parametrize("at", [0, 2])
def test_one_that_is_killed_ends_the_others_and_the_same_command_does_it_all(
    trained, command, tmp_path, at, monkeypatch
):
    run, _ = trained()
    words, bound, began = (run.path, "--num", 40, "--batch-size", 4), module._bound, time.monotonic()

    def killed(*given):
        if place().rank == at and given[3] >= 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return bound(*given)

    monkeypatch.setattr(module, "_bound", killed)
    job = commands(3, words, tmp_path / "killed")
    statuses = job.wait()
    assert statuses.pop(at) == -signal.SIGKILL and statuses == [LOST, LOST], job.said()
    assert time.monotonic() - began < 30
    (line,) = said(job)
    assert "another process was lost" in line
    assert files(run.path / "likelihood") == {}
    monkeypatch.setattr(module, "_bound", bound)
    job = commands(2, words, tmp_path / "again")
    assert job.wait() == [0, 0], job.said()
    by_two = files(run.path / "likelihood")
    assert command("likelihood", *words)[0] == 0 and files(run.path / "likelihood") == by_two


def test_weights_that_answer_with_nan_end_all_and_nothing_is_written(trained, tmp_path):
    run, _ = trained()
    spoil(run)
    job = commands(2, (run.path, "--num", 8, "--batch-size", 4), tmp_path / "out")
    assert set(job.wait()) <= {2, LOST}
    (line,) = said(job)
    assert "not a finite number" in line and files(run.path / "likelihood") == {}


def test_weights_and_data_that_differ_are_refused(trained, tmp_path):
    runs = [trained("one")[0], trained("two", train__lr=0.01)[0]]

    def work(rank):
        run = Run.open(runs[rank].path)
        cli.main(["likelihood", str(run.path), "--num", "8"])

    job = Together(2, work, tmp_path / "out")
    assert job.wait() == [2, 2]
    (line,) = said(job)
    assert "differs from the first: " in line and "weights is " in line
    assert Store.open(runs[0].config.data.store).content_hash not in line
