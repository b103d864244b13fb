"""A job of many images, killed again and again: exactly as many whole files as asked, the same as without."""

import hashlib
from dataclasses import replace
from io import BytesIO

import torch
from PIL import Image

from processes import Command, until
from tiers import proven, times
from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.generate import folder
from unstir.generate.drawing import Job
from unstir.generate.folder import image_path, save_images
from unstir.pictures.grid import is_whole, to_picture

KILLS = times(3, 20)


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")}


def test_a_killed_job_ends_with_the_files_of_one_never_killed(run, command, tmp_path):
    options = ("--num", 200, "--batch-size", 8, "--steps", 20)
    assert command("sample", run.path, *options, "--out", tmp_path / "whole")[0] == 0
    killed = tmp_path / "killed"
    for kill in range(KILLS):
        child = Command(["sample", run.path, *options, "--out", killed], tmp_path)
        goal = 190 * (kill + 1) // (KILLS + 1)
        until(lambda: len(list(killed.glob("[0-9]*.png"))) >= goal or child.poll() is not None, 120)  # noqa: B023
        assert child.poll() is None  # else it finished before it could be killed
        child.kill()
        child.wait()
    assert 0 < len(list(killed.glob("[0-9]*.png"))) < 200
    assert command("sample", run.path, *options, "--out", killed)[0] == 0
    assert hashes(killed) == hashes(tmp_path / "whole")
    assert len(list(killed.glob("[0-9]*.png"))) == 200 and not list(killed.glob(".*"))
    proven("SIGKILL while sampling", KILLS)


def test_fewer_than_are_there_is_refused(run, command, tmp_path, refused):
    assert command("sample", run.path, "--num", 6, "--out", tmp_path / "six")[0] == 0
    before = hashes(tmp_path / "six")
    refused(command("sample", run.path, "--num", 3, "--out", tmp_path / "six"), "--num 3 ", "use --num 6")
    assert hashes(tmp_path / "six") == before


def test_only_batches_of_which_an_image_is_missing_are_computed_again(run, tmp_path, watched, counts):
    out, job = tmp_path / "made", Job(num=100, chain=Chain("ddim", steps=5), batch_size=8)
    save_images(run.model(), job, out)
    before = hashes(out)
    for lost in (3, 70):
        image_path(out, lost).unlink()
    image_path(out, 99).write_bytes(b"")  # as a power cut can leave it
    (out / ".images.01234567.partial").mkdir()  # as a kill leaves it
    (out / ".images.01234567.partial/000050.png").write_bytes(b"half")
    (out / ".images.01234567.partial.lock").touch()
    (out / "7.png").write_bytes(b"not ours")
    calls = watched(Denoiser, "__call__")
    again = replace(job, batch_size=64)  # it keeps the batches that it began with
    counts.clear()
    save_images(run.model(), again, out)
    assert [len(x_t) for _, x_t, *_ in calls] == [8] * 15 and counts == [
        ("sampling", done, 15) for done in range(1, 16)
    ]
    (out / "7.png").unlink()
    assert hashes(out) == before and not list(out.glob(".*"))
    calls.clear()
    save_images(run.model(), job, out)
    assert calls == [] and hashes(out) == before


def encoded(picture):
    file = BytesIO()
    picture.save(file, format="png")
    return file.getvalue()


def broken_of(whole, mode, other, size):
    """What a power cut or a stranger can leave in place of a picture of (width, height), whose file is ``whole``."""
    width, height = size
    cut = [whole[:n] for n in (0, 5, 40, len(whole) - 1)]
    foreign = [b"not ours", bytes(len(whole)), whole[:-12] + bytes(12), bytes(12) + whole[12:], whole + b"more"]
    pictures = [Image.new(mode, wrong) for wrong in ((height, width + 1), (width + 1, height))] + [
        Image.new(other, size)
    ]
    return cut + foreign + [encoded(picture) for picture in pictures]


def test_what_is_no_whole_image_of_the_run_is_made_again(run, tmp_path, monkeypatch):
    out, job = tmp_path / "made", Job(num=48, chain=Chain("ddim", steps=2), batch_size=4)
    save_images(run.model(), job, out)
    before = hashes(out)
    broken = broken_of(image_path(out, 0).read_bytes(), "L", "RGB", (8, 8))
    for number, content in enumerate(broken):
        image_path(out, 4 * number + 1).write_bytes(content)
    begun, batch = [], folder.batch
    monkeypatch.setattr(folder, "batch", lambda *given: begun.append(given[2]) or batch(*given))
    image_path(out, 46).write_bytes(broken[2])  # beside another of its batch
    save_images(run.model(), job, out)
    assert begun == list(range(0, 48, 4)) and hashes(out) == before
    begun.clear()
    image_path(out, 20).write_bytes(broken[2])
    save_images(run.model(), job, out)
    assert begun == [20] and hashes(out) == before


def test_an_image_with_any_bit_flipped_is_not_whole(tmp_path):
    path, shape = tmp_path / "image.png", (3, 6, 5)
    to_picture(torch.randint(0, 255, shape, generator=torch.Generator().manual_seed(0)).byte()).save(path)
    content = path.read_bytes()
    assert is_whole(path, shape)
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert not is_whole(path, shape), bit
