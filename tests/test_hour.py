"""The laptop hour: what is killed goes on with the seconds that are left, and ends with them."""

import json
import sys
from pathlib import Path

import pytest

from conftest import copied
from unstir import Run, load_recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def hour(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hour

    return hour


@pytest.fixture
def tiny(hour, tmp_path):
    small = {"model.channels": 8, "model.groups": 4, "train.batch_size": 8, "grids.steps": 1}
    small |= {"train.micro_batch": 8, "data.store": str(tmp_path / "store")}
    config = hour.changed(load_recipe("digits"), small)
    return hour.Hour(config, hour.open_data(config, tmp_path / "none"), seconds=0.5, rate=1e-3, batch=8)


def test_the_seconds_go_on_from_the_step_that_was_kept(hour, tmp_path):
    file = tmp_path / "clock.txt"
    file.write_text("1 2.0\n2 4.0\n3 6.0\n4 8.")  # killed after step 4, which was not kept
    clock = hour.Clock(file, [3.0, 60.0])
    assert 8 <= clock.seconds < 9  # of a training that has ended
    clock.begin(2, 10, (8, 1, 8, 8))
    assert 4 <= clock.seconds < 5
    clock.step(3)
    assert clock.stop.signal is None
    assert 4 <= hour.seconds_at(file, 3) < 5


def test_a_training_is_asked_to_stop_at_the_next_end(hour, tmp_path):
    file = tmp_path / "clock.txt"
    file.write_text("2 4.0\n")
    clock = hour.Clock(file, [3.0, 4.000001])
    clock.begin(2, 10, (8, 1, 8, 8))
    clock.step(3)
    assert clock.stop.signal


def test_a_killed_training_goes_on_to_the_end_of_its_rate(hour, tiny, tmp_path, monkeypatch, watched):
    monkeypatch.setattr(hour, "seconds_a_step", lambda configs, *_: {"": 0.002})
    monkeypatch.setattr(hour, "ENDS", (0.4,))
    watched(hour.Clock, "step", KeyboardInterrupt(), lambda calls: len(calls) == 1)
    with pytest.raises(KeyboardInterrupt):
        hour.ours(tiny, tmp_path, seed=1)
    assert Run.open(tmp_path / "run").length == 250
    trained, seconds = hour.ours(tiny, tmp_path, seed=1)
    run = Run.open(tmp_path / "run")
    assert trained.steps == run.length == run.newest_step()
    assert run.steps_in(run.config.train.warmup) + run.steps_in(run.config.train.lr_period) == run.length
    assert seconds > tiny.seconds / 2
    assert trained.draws["unipc"](3, 2).shape == (3, 1, 8, 8)


def test_the_table_has_means_over_trainings_and_the_floors(hour):
    def row(seed, fd):
        drawn = {"unipc": {"fd": fd, "fd_floor": 0.1, "swd": 20.0, "swd_floor": 9.0, "nearer": 0.5, "copies": "none"}}
        about = {"seconds": 60.0, "images": 640, "parameters": 5, "bits": 4.0, "machine": [("processor", "two")]}
        return {"side": "ours", "seed": seed, "drawn": drawn, **about}

    *_, ours, floor = hour.table([row(0, 1.0), row(1, 2.0)]).splitlines()
    assert "| 2 | 1.0 | 640 | 5 | 1.500 ± 0.707 | 20.000 ± 0.000 | 4.000 ± 0.000 |" in ours
    assert "| 0.100 | 9.000 |" in floor


def test_results_of_other_settings_are_refused(hour, tmp_path):
    file = tmp_path / "hour.json"
    hour.write(file, hour.earlier(file, {"num": 3}, {"rows": [1]}))
    assert hour.earlier(file, {"num": 3}, {}) == {"num": 3, "rows": [1]}
    with pytest.raises(SystemExit, match="num"):
        hour.earlier(file, {"num": 4}, {})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers
def test_diffusers_is_trained_judged_and_kept(hour, classified, quick, tmp_path, monkeypatch, capsys):
    pytest.importorskip("diffusers", reason="the peer: pip install '.[bench]'")
    copied(classified, tmp_path / "data/digits", classifier=True)
    monkeypatch.setattr("peers.judges.BOUNDED", 16)
    monkeypatch.setattr("peers.judges.CALLS", 10)
    command = "hour.py --recipe digits --minutes 0.02 --num 24 --calls 4 --arm diffusers-0 --out"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*command.split(), "out"])
    hour.main()
    first = json.loads(Path("out/diffusers-0.json").read_text())
    assert first["drawn"]["DPMSolverMultistep"]["fd"] > 0
    assert 2 < first["bits"] < 20
    Path("out/diffusers-0.json").unlink()
    hour.main()
    again = json.loads(Path("out/diffusers-0.json").read_text())
    assert (again["steps"], again["bits"], again["drawn"]) == (first["steps"], first["bits"], first["drawn"])
    assert "diffusers, DPMSolverMultistep" in capsys.readouterr().out
