"""The settings beside a picture: what they are named by, and which files they vouch for."""

import json

import pytest

from unstir.errors import UserError
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


@pytest.mark.parametrize(
    ("singles", "file", "is_ours"),
    [
        (1, "a-0.png", True),
        (1, "a-1.png", False),
        (None, "a-0.png", False),
        (0, "a-0.png", False),
        (10_000, "a-9999.png", True),
        (10_001, "a-0.png", False),
        ("2", "a-0.png", False),
        (True, "a-0.png", False),
    ],
)
def test_a_sidecar_vouches_for_as_many_single_results_as_it_says(tmp_path, singles, file, is_ours):
    picture, single = tmp_path / "a.png", tmp_path / file
    settings = {"command": "unstir edit vary"} | ({} if singles is None else {"singles": singles})
    (tmp_path / "a.json").write_text(json.dumps(settings))
    picture.touch()
    sidecar.check(picture)
    single.touch()
    if is_ours:
        sidecar.check(picture, [single])
        return
    with pytest.raises(UserError, match=f"{file} is there and has no sidecar of unstir"):
        sidecar.check(picture, [single])


@pytest.mark.parametrize("text", ['["command"]', '{"command": "other edit"}', '{"command": 3}', "{}", "{"])
def test_settings_of_others_are_not_replaced(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="is not of unstir; name another file with --out"):
        sidecar.check(tmp_path / "a.png")


def test_a_picture_is_written_before_its_settings_and_only_then_no_longer_unfinished(tmp_path, monkeypatch):
    picture, seen, synced = tmp_path / "new/a.png", [], []
    monkeypatch.setattr(sidecar, "sync_folder", lambda folder: synced.append((folder / "a.json").exists()))

    def write(path):
        seen.append(sorted(each.name for each in path.parent.iterdir() if each != path))
        path.write_bytes(b"pixels")

    for number in (1, 2):
        sidecar.save(picture, write, "unstir edit vary", {"grey": number}, calls=3)
    assert seen == [[".a.png.unfinished"], [".a.png.unfinished", "a.json", "a.png"]]
    assert sorted(each.name for each in picture.parent.iterdir()) == ["a.json", "a.png"]
    assert synced == [False, False]  # an older one is gone for good before its picture is replaced
    found = json.loads((tmp_path / "new/a.json").read_text())
    assert found.pop("unstir") and found == {"command": "unstir edit vary", "grey": 2, "calls": 3}


def test_a_folder_is_no_picture(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match=r"--to .*a\.png is a folder; name a file in it"):
        sidecar.check(tmp_path / "a.png", option="--to")
