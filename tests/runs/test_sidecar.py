"""The settings beside a picture: what they are named by, and which files they vouch for."""

import hashlib
import json

import pytest

from refusals import mistake
from unstir.runs import sidecar


def test_a_name_has_six_digits_of_all_settings_but_the_machines():
    settings = {"a": 1, "b": [2]}
    found = sidecar.digest(settings)
    assert found == sidecar.digest({"b": [2], "torch": "2", "threads": 4, "a": 1}) != sidecar.digest({"a": 1})
    assert len(found) == 6 and int(found, 16) >= 0


def test_files_beside_a_picture_have_its_name(tmp_path):
    assert sidecar.sidecar_of(tmp_path / "a.PNG") == tmp_path / "a.json"
    assert sidecar.sidecar_of(tmp_path / "a.webp") == tmp_path / "a.webp.json"
    assert [path.name for path in sidecar.numbered(tmp_path / "a.png", 2)] == ["a-0.png", "a-1.png"]


WRITTEN, ANOTHER = (hashlib.sha256(content).hexdigest() for content in (b"written", b"another"))


@pytest.mark.parametrize(
    ("singles", "file", "is_ours"),
    [
        ([WRITTEN], "a-0.png", True),
        ([WRITTEN], "a-1.png", False),
        ([ANOTHER, WRITTEN], "a-1.png", True),
        ([ANOTHER], "a-0.png", False),  # it was changed
        ([], "a-0.png", False),
        (None, "a-0.png", False),
    ]
    + [(singles, "a-0.png", False) for singles in (1, WRITTEN, [WRITTEN, 3], {WRITTEN: 1})],
)
def test_a_sidecar_vouches_for_the_single_results_whose_content_it_has(tmp_path, singles, file, is_ours):
    picture, single = tmp_path / "a.png", tmp_path / file
    settings = {"command": "unstir edit vary"} | ({} if singles is None else {"singles": singles})
    (tmp_path / "a.json").write_text(json.dumps(settings))
    picture.touch()
    sidecar.check(picture)
    single.write_bytes(b"written")
    if is_ours:
        sidecar.check(picture, [single])
    else:
        assert mistake(sidecar.check, picture, [single]).given == single
    single.with_suffix(".json").touch()
    assert mistake(sidecar.check, picture, [single]).given == single  # a picture of its own


@pytest.mark.parametrize("left", ["", "[[0]]", '{"0": ""}', "3", "[" * 9999])
def test_what_a_killed_command_left_takes_no_file_that_it_did_not_write(tmp_path, left):
    picture = tmp_path / "a.png"
    singles = sidecar.numbered(picture, 3)
    (tmp_path / ".a.png.unfinished").write_text(left)
    for path in singles:
        path.write_bytes(b"written")
    sidecar.save(picture, lambda path: path.write_bytes(b"picture"), "unstir edit vary", {"grey": 1})
    assert [path.read_bytes() for path in singles] == [b"written"] * 3


def test_what_a_killed_command_wrote_goes_with_its_picture(tmp_path):
    picture = tmp_path / "a.png"
    changed, *written = sidecar.numbered(picture, 3)
    (tmp_path / ".a.png.unfinished").write_text(json.dumps([WRITTEN, WRITTEN, ANOTHER]))
    for path in (changed, *written):
        path.write_bytes(b"changed" if path == changed else b"written")
    sidecar.save(picture, lambda path: path.write_bytes(b"picture"), "unstir edit vary", {"grey": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.png", "a.json", "a.png"]


@pytest.mark.parametrize("text", ['["command"]', '{"command": "other edit"}', '{"command": 3}', "{}", "{"])
def test_settings_of_others_are_not_replaced(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    refused = mistake(sidecar.check, tmp_path / "a.png")
    assert (refused.key, refused.given) == ("out", tmp_path / "a.png")


def test_a_picture_is_written_before_its_settings_and_only_then_no_longer_unfinished(tmp_path, monkeypatch):
    picture, seen, synced = tmp_path / "new/a.png", [], []
    monkeypatch.setattr(sidecar, "sync_folder", lambda folder: synced.append((folder / "a.json").exists()))

    def write(path):
        seen.append(sorted(each.name for each in path.parent.iterdir() if each != path))
        path.write_bytes(b"pixels")

    for number in (1, 2):
        sidecar.save(picture, write, "edit vary", {"grey": number}, calls=3)
    assert seen == [[".a.png.unfinished"], [".a.png.unfinished", "a.json", "a.png"]]
    assert sorted(each.name for each in picture.parent.iterdir()) == ["a.json", "a.png"]
    assert synced == [False, False]  # an older one is gone for good before its picture is replaced
    found = json.loads((tmp_path / "new/a.json").read_text())
    assert found.pop("unstir") and found == {"command": "edit vary", "grey": 2, "calls": 3}


def test_a_folder_is_no_picture(tmp_path):
    (tmp_path / "a.png").mkdir()
    refused = mistake(sidecar.check, tmp_path / "a.png", key="to")
    assert (refused.key, refused.given) == ("to", tmp_path / "a.png")
