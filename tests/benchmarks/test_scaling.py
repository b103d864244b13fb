"""The model of a step that several processes share: its two parts, against what is known of them."""

import pytest
import torch

from scaling import Link, exchange_seconds, measured_link, step_seconds


def test_a_ring_sends_each_number_twice_but_for_the_last_part_and_waits_for_each_bucket():
    fast = Link(1e9, 0.0)
    assert exchange_seconds(1e9, 2, fast) == pytest.approx(1.0)  # as nccl-tests define the bandwidth of a bus
    assert exchange_seconds(1e9, 8, fast) == pytest.approx(1.75)
    assert exchange_seconds(1e9, 1, fast) == 0
    slow = Link(float("inf"), 1.0)
    sizes = {1000: 1, 1 << 20: 1, (1 << 20) + 1: 2, 26 << 20: 2, (26 << 20) + 1: 3}
    assert [exchange_seconds(size, 4, slow) for size in sizes] == [2 + buckets for buckets in sizes.values()]


def test_a_step_lies_between_no_overlap_and_all_of_the_backward_pass():
    assert step_seconds(3.0, 1.0) == (4.0, 3.0)  # hidden behind the 2 s of the backward pass
    assert step_seconds(3.0, 5.0) == (8.0, 6.0)  # which it exceeds by 3 s


def test_what_is_measured_between_processes_here_gives_the_time_that_was_measured(tmp_path):
    size = 1 << 20
    link, seconds = measured_link(size, 2, tmp_path / "meeting")
    torch.distributed.destroy_process_group()
    assert 0 < link.latency < seconds and link.latency + 4 * size / link.bandwidth == pytest.approx(seconds)
