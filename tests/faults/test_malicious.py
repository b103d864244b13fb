"""Files that are programs, under every name that is read: refused in a line, or left out, and nothing of them runs."""

import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

from conftest import copied
from unstir.data import Store, pack
from unstir.errors import UserError
from unstir.interop import torch_file
from unstir.interop.weights import read_weights
from unstir.metrics.features import NOT_KEPT, kept
from unstir.metrics.images import read
from unstir.runs import checkpoint


class Program:
    """What makes a folder when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.canary),)


def _saved(program, **options):
    stream = io.BytesIO()
    torch.save({"model.a": program}, stream, **options)
    return stream.getvalue()


def _array(program, save):
    stream = io.BytesIO()
    save(stream, np.array([program], object))
    return stream.getvalue()


FORMS = {
    "protocol 0": lambda program: pickle.dumps(program, 0),
    "protocol 2": lambda program: pickle.dumps({"a": program}, 2),
    "protocol 5": lambda program: pickle.dumps([program], 5),
    "global and reduce": lambda program: b"\x80\x02cos\nmkdir\n(V" + str(program.canary).encode() + b"\ntR.",
    "torch zip": _saved,
    "torch legacy": lambda program: _saved(program, _use_new_zipfile_serialization=False),
    "object npy": lambda program: _array(program, np.save),
    "object npz": lambda program: _array(program, np.savez),
}


def as_checkpoint(data, folder, digits):
    path = folder / checkpoint.file_name(4)
    path.write_bytes(data)
    checkpoint.load(path)


def as_safetensors(data, folder, digits):
    (folder / "weights.safetensors").write_bytes(data)
    read_weights(folder / "weights.safetensors")


def as_weights(data, folder, digits):
    (folder / "weights.pt").write_bytes(data)
    if said := torch_file.convert(folder / "weights.pt", folder / "safe"):
        raise UserError(said)


def as_array_of_a_store(data, folder, digits):
    store = Store.open(copied(digits, folder / "store"))
    whole = store.path / "train.images.npy"
    whole.write_bytes(data[: whole.stat().st_size].ljust(whole.stat().st_size, b"\0"))
    Store.open(store.path).images("train")


def as_statistics(data, folder, digits):
    (folder / "reference.safetensors").write_bytes(data)
    kept(folder / "reference.safetensors", "statistics")


def as_images_to_measure(data, folder, digits):
    (folder / "set.npz").write_bytes(data)
    read(folder / "set.npz", Store.open(digits))


def as_cifar(data, folder, digits):
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    vouched = hashlib.sha256((folder / "a.tar.gz").read_bytes()).hexdigest()
    pack(folder / "a.tar.gz", folder / "out", sha256=vouched)


PLACES = (
    as_checkpoint, as_safetensors, as_weights, as_array_of_a_store, as_statistics, as_images_to_measure, as_cifar,
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_a_program_in_place_of_a_file_is_refused_and_does_not_run(form, place, digits, tmp_path):
    canary = tmp_path / "canary"
    data = FORMS[form](Program(canary))
    with pytest.raises((UserError, *NOT_KEPT)) as refusal:
        place(data, tmp_path, digits)
    assert not canary.exists()
    assert "Traceback" not in str(refusal.value)


def test_the_canary_sings_where_a_program_is_run(tmp_path):
    for form in ("protocol 0", "protocol 2", "protocol 5", "global and reduce"):
        canary = tmp_path / form
        pickle.loads(FORMS[form](Program(canary)))
        assert canary.is_dir()
