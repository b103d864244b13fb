"""What pages call: the files of a drawing are those of a job's folder, and runs have ids."""

import shutil

import pytest

from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.memory import Drawing
from unstir.generate.sampling import sample
from unstir.runs import named
from unstir.serve.server import open_server
from unstir.serve.state import State
from unstir.serve.training import TrainingValues, training


@pytest.mark.parametrize("num", [1, 5])
def test_a_drawing_has_the_files_of_the_folder(trained, tmp_path, num):
    model = trained()[0].model(device="cpu")
    job = Job(num=num, chain=model.chain.changed(steps=4, seed=2))
    sample(model, job, tmp_path / "out", format="npy", animation=tmp_path / "a.webp")
    drawing = Drawing(model, job)
    assert [frame.t for frame in drawing.frames()] == job.chain.visited(model.process.schedule)
    assert drawing.png() == (tmp_path / "out/grid.png").read_bytes()
    assert drawing.npy() == (tmp_path / "out/images.npy").read_bytes()
    assert model.takes(steps=4) and not model.takes(steps=10**6)
    assert drawing.webp() == (tmp_path / "a.webp").read_bytes()


def test_files_are_kept_by_their_bytes():
    state = State()
    for size in (*range(20), 31_000_000, 40_000_000):
        state.keep(str(size), "image/png", bytes(size))
        assert state.file(str(size)) and bool(state.file("0")) == (size < 40_000_000)


def test_runs_of_one_name_have_ids_of_their_own_and_new_ones_are_found(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, third = trained("mnist")[0].path, trained("mnist-3")[0].path
    trained("runs/mnist")
    state = State([third, given, tmp_path / "runs/mnist"])
    trained("runs/mine")
    given = {"mnist-2": given, "mnist-3": third, "mnist-4": tmp_path / "runs/mnist", "mine": "runs/mine"}
    shipped = {name: f"shipped:{name}" for name in named.names()}
    assert state.runs() == shipped | {id: str(path) for id, path in given.items()}
    assert next(iter(state.runs())) == "mnist"
    shutil.rmtree("runs/mine")
    assert "mine" not in state.runs()
    with pytest.raises(UserError) as refused:
        state.run("../mnist")
    assert refused.value.key == "model"


def test_a_run_trained_anew_in_its_folder_is_read_anew(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, seen = State(), []
    for lr in (1e-3, 2e-3):
        trained("runs/mine", train__lr=lr)
        assert state.model("mine") is state.model("mine")
        seen.append((state.model("mine").hashes, training(state, TrainingValues(model="mine"))["snapshots"]))
        shutil.rmtree("runs/mine")
    (first, grids), (second, others) = seen
    assert first != second and [it["step"] for it in grids] == [it["step"] for it in others] and grids != others


def test_a_port_that_cannot_be_had_is_refused():
    with open_server() as opened:
        for port in (opened.server_port, 70000):
            with pytest.raises(UserError) as refused:
                open_server(port=port)
            assert (refused.value.key, refused.value.given) == ("port", port)
