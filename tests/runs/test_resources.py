"""How much memory was taken at most and could be had, against what is allocated here and what the system says."""

import re
import resource
from pathlib import Path

import pytest
import torch

from processes import in_a_child
from unstir.runs import resources

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("limit", "bytes_"), [("1000\n", 900), ("max\n", 500), ("50", 0), ("9" * 20, 500), (None, 500)]
)
def test_the_free_memory_is_what_the_control_group_leaves(monkeypatch, limit, bytes_):
    def read(path, encoding):
        if limit is None:
            raise FileNotFoundError
        return limit

    there = {"MemAvailable": 500 if bytes_ == 500 else 2_000, "VmRSS": 100}
    monkeypatch.setattr(resources, "_of", lambda file, key: there.get(key, 0))
    monkeypatch.setattr(resources.Path, "read_text", read)
    assert resources.free() == bytes_


def test_what_is_allocated_is_not_free_and_stays_the_peak():
    assert resources.peak(CPU) > 1e7 and resources.free() < 1e14
    before = resources.peak(CPU)
    held = torch.ones(64_000_000)
    del held
    assert resources.peak(CPU) >= before


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_of_the_process_bounds_what_it_can_have(limit):
    def left():
        key = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}[limit]
        used = re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]
        most = 1024 * int(used) + 50_000_000
        resource.setrlimit(limit, (most, most))
        return resources.free()

    assert int(in_a_child(left)) == pytest.approx(50_000_000, abs=20_000_000)


def test_without_proc_the_peak_is_what_the_system_counts(monkeypatch):
    monkeypatch.setattr(resources, "_of", lambda file, key: 0)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resources.peak(CPU) == own * 1024
    monkeypatch.setattr(resources.sys, "platform", "darwin")
    assert resources.peak(CPU) == own


def test_on_cuda_the_peak_is_what_torch_has_given_to_tensors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 30)
    assert resources.peak(CUDA) == 30
