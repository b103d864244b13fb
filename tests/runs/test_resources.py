"""How much memory there is, was taken at most and is taken, against what is allocated here and what the system says."""

import ctypes
import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from processes import in_a_child
from unstir.distributed import processes
from unstir.runs import resources

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("limit", "bytes_"), [("1000\n", 1000), ("max\n", 2_048_000), ("9" * 20, 2_048_000), (None, 2_048_000)]
)
def test_the_memory_is_what_the_control_group_leaves(monkeypatch, limit, bytes_):
    def read(path, encoding):
        if limit is None:
            raise FileNotFoundError
        return limit

    monkeypatch.setattr(resources.Path, "read_text", read)
    monkeypatch.setattr(resources.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500}.__getitem__)
    assert resources.memory(CPU) == bytes_


def test_the_memory_is_this_machines():
    assert 1e8 < resources.memory(CPU) < 1e14
    assert 1e7 < resources.taken(CPU) <= resources.peak(CPU)
    assert resources.taken(CPU) < resources.reachable(CPU) <= resources.memory(CPU)


def test_what_is_allocated_is_taken_and_stays_the_peak():
    before, most = resources.taken(CPU), resources.peak(CPU)
    held = torch.ones(64_000_000)
    taken = resources.taken(CPU) - before
    assert 0.9 * 256e6 < taken < 1.2 * 256e6
    del held
    assert resources.taken(CPU) - before < 0.2 * 256e6
    assert resources.peak(CPU) >= max(most, before + 0.9 * 256e6)


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_of_the_process_bounds_what_it_can_have(limit):
    def left():
        key = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}[limit]
        most = resources._of("/proc/self/status", key) + 50_000_000
        resource.setrlimit(limit, (most, most))
        return resources.reachable(CPU) - resources.taken(CPU)

    assert int(in_a_child(left)) == pytest.approx(50_000_000, abs=20_000_000)


def test_without_proc_the_peak_is_what_the_system_counts(monkeypatch):
    monkeypatch.setattr(resources, "_of", lambda file, key: 0)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resources.peak(CPU) == own * 1024 == resources.taken(CPU)
    monkeypatch.setattr(resources.sys, "platform", "darwin")
    assert resources.peak(CPU) == own


def test_on_cuda_it_is_what_torch_has_given_to_tensors(monkeypatch):
    given = {"memory_allocated": 10, "max_memory_allocated": 30, "memory_reserved": 25, "mem_get_info": (100, 400)}
    for name, value in given.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=400))
    assert (resources.memory(CUDA), resources.taken(CUDA), resources.peak(CUDA)) == (400, 10, 30)
    assert resources.reachable(CUDA) == 125  # what is free, and what the allocator keeps


class Counts(ctypes.Structure):
    """What glibc counts of its memory, mallinfo2(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd", "a", "b", "c", "d", "keepcost"]
    ]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_freed_blocks_go_back_to_the_system_at_once():
    def mapped():
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = Counts
        libc.mallopt(resources.M_MMAP_THRESHOLD, 32 * resources.BLOCK)  # as it is after a block of that size
        found, held = [], []
        for ask in (lambda: None, resources.return_blocks_at_once):
            ask()
            for size in (resources.BLOCK // 2, 2 * resources.BLOCK):
                before = libc.mallinfo2().hblks
                new = [torch.empty(size, dtype=torch.uint8) for _ in range(100)]  # some fit into what is free already
                found.append(libc.mallinfo2().hblks - before)
                held.extend(new)
        before = libc.mallinfo2().hblks
        del held, new
        return [*found, before - libc.mallinfo2().hblks]

    *kept, given, back = json.loads(in_a_child(mapped))
    assert kept == [0, 0, 0] and 50 < given == back


LARGE = 64 * resources.BLOCK  # glibc maps such a block by itself, whatever was freed before


def resident():
    return resources._of("/proc/self/status", "VmRSS")


def of_system(size):
    """How many blocks the system gives, each by itself, where one of so many bytes is asked for and freed."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Counts
    before = libc.mallinfo2().hblks
    block = torch.empty(size, dtype=torch.uint8)
    given = libc.mallinfo2().hblks - before
    del block
    return given


def in_a_new_process(call):
    """What a function of this file returns there: no allocation has failed before, after which glibc keeps none."""
    code = f"import sys, json; sys.path[:] = {sys.path!r}; import test_resources as t; print(json.dumps(t.{call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def mapped_blocks():
    resources.reachable = lambda device: 200
    found = []
    for number, (takes, device) in enumerate([(101, CPU), (100, CUDA), (100, CPU), (101, CPU), (1, CPU)], start=1):
        resources.keep_blocks(takes, device)
        found.append(of_system(number * LARGE))  # more than is free in the process
    resources.return_blocks_at_once()
    resources.keep_blocks(1, CPU)
    return [*found, of_system(6 * LARGE)]


def mapped_of_two(takes):
    """Where the job has two processes."""
    resources.reachable = lambda device: 200
    processes.size = lambda: 2
    resources.keep_blocks(takes, CPU)
    return of_system(LARGE)


def given_back(function):
    """Bytes that go back to the system by freeing a block, and then by a function of `resources`."""
    resources.keep_blocks(1, CPU)
    below, end = torch.ones(LARGE, dtype=torch.uint8), torch.ones(LARGE, dtype=torch.uint8)
    before, _ = resident(), end.sum()
    del below
    freed = before - resident()
    getattr(resources, function)(CPU)
    return freed, before - resident()


def takes_large_ones():
    return ctypes.CDLL(None).mallopt(resources.M_MMAP_THRESHOLD, resources.MOST)


@pytest.fixture
def new_glibc():
    """Skips where the C library keeps no large blocks."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2") or not in_a_new_process("takes_large_ones()"):
        pytest.skip("needs a glibc that keeps blocks above 32 MiB")


@pytest.mark.usefixtures("new_glibc")
def test_freed_blocks_are_kept_where_twice_the_memory_may_be_had():
    assert in_a_new_process("mapped_blocks()") == [1, 1, 0, 1, 0, 1]
    assert [in_a_new_process(f"mapped_of_two({takes})") for takes in (51, 50)] == [1, 0]


@pytest.mark.usefixtures("new_glibc")
@pytest.mark.parametrize("function", ["release", "taken"])  # the latter counts what is in use alone
def test_what_is_kept_is_given_back(function):
    kept, released = in_a_new_process(f"given_back({function!r})")
    assert kept < LARGE // 10 and released > 0.9 * LARGE


def test_a_glibc_that_refuses_large_blocks_keeps_those_that_it_can(monkeypatch, keep_blocks):
    asked = []

    def mallopt(option, value):
        asked.append((option, value))
        return option == resources.M_TRIM_THRESHOLD or value <= 32 * resources.BLOCK

    monkeypatch.setattr(resources.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_blocks(0, CPU)
    mapped, trimmed = resources.M_MMAP_THRESHOLD, resources.M_TRIM_THRESHOLD
    assert asked == [(mapped, resources.MOST), (mapped, 32 * resources.BLOCK), (trimmed, resources.MOST)]


def test_another_c_library_is_left_as_it_is(monkeypatch, keep_blocks):
    def ask():
        monkeypatch.setattr(resources, "_blocks", "")
        keep_blocks(0, CPU)
        resources.return_blocks_at_once()
        resources.release(CPU)

    monkeypatch.setattr(resources.ctypes, "CDLL", lambda name: SimpleNamespace())
    ask()
    monkeypatch.delattr(resources.ctypes, "CDLL")
    monkeypatch.setattr(resources.sys, "platform", "win32")
    ask()
