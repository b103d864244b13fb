"""What is written, and what must hold of it after a fault: pairs of act(promise) and check(folder, promised)."""

import hashlib

import torch

from unstir.data import Store, pack
from unstir.runs import checkpoint, files, lines
from unstir.runs.checkpoint import Checkpoint


def content(step):
    return Checkpoint(step, {"a": 1}, {"model.a": torch.full((50,), float(step)), "ema.b": torch.ones(3)}, {"n": step})


def checkpoints(folder):
    """Three checkpoints, of which two are kept: each counts once it is saved."""

    def act(promise):
        for step in (4, 8, 12):
            checkpoint.save(folder / "checkpoints", content(step))
            promise(step)
            checkpoint.keep_last(folder / "checkpoints", 2)

    def check(left, promised):
        found, _ = checkpoint.newest(left / "checkpoints")
        assert (0 if found is None else found.step) >= max(promised, default=0)
        if found is not None:
            assert all(torch.equal(found.tensors[name], t) for name, t in content(found.step).tensors.items())
            assert found.state == {"n": found.step}
        checkpoint.save(left / "checkpoints", content(16))
        assert checkpoint.newest(left / "checkpoints")[0].step == 16

    return act, check


def texts(folder):
    """A file that is replaced: the old or the new one, and the new one once that was said."""
    written = [f"{number}\n" * 3000 for number in range(4)]

    def act(promise):
        for number, text in enumerate(written):
            files.write_text(folder / "file", text)
            promise(number)

    def check(left, promised):
        found = (left / "file").read_text() if (left / "file").exists() else None
        allowed = written[max(promised) :] if promised else [None, *written]
        assert found in allowed

    return act, check


def logs(folder):
    """Lines of a log: those before a durable one are there, a torn last one is dropped."""
    log = folder / "log.jsonl"

    def act(promise):
        for number in range(len(read(log)) if log.exists() else 0, 6):
            lines.append(log, {"step": number, "x": "y" * 50}, durable=number % 2 == 1)
            if number % 2:
                promise(number)

    def read(log):
        return [line["step"] for line in lines.read(log, lambda line: None).lines if line["step"] < 99]

    def check(left, promised):
        log = left / "log.jsonl"
        found = read(log) if log.exists() else []
        least = max(promised, default=-1) + 1
        assert found[:least] == list(range(least)), found
        lines.append(log, {"step": 99}, durable=True)
        assert lines.read(log, lambda line: None).lines[-1]["step"] == 99 and read(log) == found

    return act, check


def stores(folder):
    """A store that is packed: published it is whole, before that the same call ends with the same bytes."""
    names = ("train.images.npy", "train.labels.npy", "held_out.images.npy", "held_out.labels.npy", "manifest.json")

    def hashes(path):
        return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}

    def act(promise):
        pack("digits", folder / "store")
        promise(hashes(folder / "store"))

    def check(left, promised):
        if promised:
            Store.open(left / "store").verify()
        elif (left / "store").exists() and any((left / "store").iterdir()):
            Store.open(left / "store").verify()  # its name alone says that it is whole
        pack("digits", left / "store")
        assert hashes(left / "store") == WHOLE.setdefault("digits", hashes(folder / "store"))

    return act, check


WHOLE = {}
SCENARIOS = {of.__name__: of for of in (checkpoints, texts, logs, stores)}
