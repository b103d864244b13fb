"""CUDA's settings for the same bits each time: set in a block, put back behind it, and said where torch refuses."""

import os

import pytest
import torch
from torch.utils import deterministic

from unstir.diffusion.arithmetic import kernels, layout, repeatable, tf32
from unstir.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # a device can be named where there is none


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        deterministic.fill_uninitialized_memory,
    )


@pytest.fixture
def others(request):
    """Settings of a user's own, and torch's defaults afterwards."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def test_a_block_on_cuda_is_repeatable_and_leaves_nothing_behind():
    before = settings()
    with repeatable(CUDA):
        assert settings() == (True, False, False, False)
        with repeatable(CUDA):
            pass
        assert settings() == (True, False, False, False)
    assert settings() == before == (False, False, False, True)


def test_what_a_user_had_set_is_put_back_also_after_an_error(others):
    before = settings()
    with pytest.raises(ValueError), repeatable(CUDA):
        assert settings() == (True, False, False, False)
        raise ValueError
    assert settings() == before == (True, True, True, True)


def test_other_devices_change_nothing():
    before = settings()
    for device in (CPU, torch.device("mps")):
        with repeatable(device):
            assert settings() == before
        assert kernels(device) == "" and layout(device) == torch.preserve_format


def test_what_torch_refuses_is_said_in_one_line(monkeypatch):
    refused = "avg_pool3d_backward_cuda does not have a deterministic implementation, but you set"
    with pytest.raises(UserError, match="avg_pool3d_backward_cuda"), repeatable(CUDA):
        raise RuntimeError(refused)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UserError) as refusal, repeatable(CUDA):
        raise RuntimeError("it uses CuBLAS: set CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG=:16:8")
    assert refusal.value.given == ":0:0" and "CUBLAS_WORKSPACE_CONFIG=:4096:8" in refusal.value.remedy
    with pytest.raises(torch.OutOfMemoryError), repeatable(CUDA):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_command_line_sets_what_cublas_needs(command, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert command("--version")[0] == 0
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_the_kernels_are_named_with_what_torch_was_told(monkeypatch):
    assert tf32() == (True, False)
    assert kernels(CUDA) == "repeatable, channels last, float32 convolutions in TF32, products in float32"
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = False
        assert tf32() == (False, True)
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert tf32() == (False, False)
