"""A picture of the run that is damaged is named; none that is wrong is shown."""

import pytest
import torch

from unstir.errors import UserError
from unstir.insight.pictures import from_file
from unstir.pictures.grid import to_picture


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_damaged_picture_is_named(tmp_path, kind):
    path = tmp_path / f"images.{kind}"
    to_picture(torch.randint(0, 255, (3, 40, 40), generator=torch.Generator().manual_seed(0)).byte()).save(path)
    content = path.read_bytes()
    assert from_file(path, "samples").width == 40
    spoilt = [content[: len(content) // 2], b""]
    if kind == "png":  # which has checksums
        spoilt += [content[:200] + bytes(500) + content[700:]]
        spoilt += [content[:900] + bytes([content[900] ^ 1]) + content[901:]]
    for each in spoilt:
        path.write_bytes(each)
        with pytest.raises(UserError, match=f"images.{kind} is"):
            from_file(path, "samples")
