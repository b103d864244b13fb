"""What the processes of a job exchange, and what each of them is told; and that one alone exchanges nothing."""

import itertools
import math
import re

import pytest
import torch

from together import together
from unstir import torchrun_group
from unstir.errors import UserError
from unstir.group import Alone
from unstir.jobs.process import checked_place, place


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shares_cover_all_slots_once_and_differ_by_one_at_most(size):
    for total in (size, size + 1, 13, 128):
        parts = [range(total)[Alone(rank, size).share(total)] for rank in range(size)]
        assert list(itertools.chain(*parts)) == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_is_the_first_and_exchanges_nothing():
    rows = (torch.arange(3), torch.rand(3, 2))
    with torchrun_group() as group:
        assert (group.rank, group.size, group.is_first, group.share(5)) == (0, 1, True, slice(0, 5))
        assert group.of_first({"a": (1, 2)}) == {"a": (1, 2)} and group.of_all(4) == [4]
        assert group.rows_of_all(rows, slice(0, 3), 3) is rows
        group.agree({"a": 1}, "")
        group.check_alike({"a": torch.rand(3)}, "")
        assert [group.vote(None), group.vote(15), group.vote(None), group.voted()] == [None, 15, None, None]


def refusal(call, *arguments):
    try:
        call(*arguments)
    except UserError as error:
        return str(error)
    return ""


def test_what_is_exchanged_arrives_whole(tmp_path):
    total = 7
    times = torch.tensor([100_000, 3, 2**40, 1, -5, 0, 9])
    losses = torch.tensor([0.1, math.inf, math.nan, -0.0, 1e-42, 3e38, 1 / 3])
    figures = torch.rand(total, 3)
    like = {"weight": torch.rand(4, 3), "step": torch.tensor(5.0), "none": torch.zeros(2, 0, dtype=torch.int64)}

    def work(rank):
        with torchrun_group("cpu") as group:
            part = group.share(total)
            rows = group.rows_of_all((times[part], losses[part], figures[part]), part, total)
            same = [
                torch.equal(a.nan_to_num(7), b.nan_to_num(7))
                for a, b in zip(rows, (times, losses, figures), strict=True)
            ]
            kinds = [a.dtype == b.dtype for a, b in zip(rows, (times, losses, figures), strict=True)]
            given = {} if rank else like
            taken = group.tensors_of_first(given)
            arrived = [torch.equal(taken[key], like[key]) and taken[key].dtype == like[key].dtype for key in like]
            votes = [group.vote(15 if (rank, call) == (1, 2) else None) for call in range(6)]
            drifted = {key: t.clone() for key, t in like.items() if key != "none"}
            alike = refusal(group.check_alike, drifted, "remedy")
            if rank == 2:
                drifted["weight"].view(torch.int32)[2, 1] ^= 1
            return {
                "first": group.of_first({"é": [rank, None]}),
                "all": group.of_all("x" * rank),
                "rows": same + kinds + arrived,
                "votes": [*votes, group.voted()],
                "alike": alike,
                "drifted": refusal(group.check_alike, drifted, "remedy"),
                "agreed": refusal(group.agree, {"a": 1, "b": [rank // 3]}, "remedy"),
                "ends": refusal(group.agree, {"path": f"{'long/' * 20}{rank // 2}"}, "remedy"),
                "differing": refusal(group.agree, {"a": 1, **({"lr": 2} if rank == 1 else {})}, "remedy"),
            }

    found = together(3, work, tmp_path)
    assert found[0] == found[1] == found[2]
    (first, *_) = found
    assert first["first"] == {"é": [0, None]} and first["all"] == ["", "x", "xx"]
    assert first["rows"] == [True] * 9
    assert first["votes"] == [None, None, None, 15, None, None, None]
    assert first["alike"] == "" and first["agreed"] == ""
    assert "process 2 of 3" in first["drifted"] and "weight; remedy" in first["drifted"]
    assert "process 1 of 3" in first["differing"] and "lr is 2" in first["differing"]
    (its, due) = re.findall(r"'([^']*)'", first["ends"])
    assert its.endswith("long/1") and due.endswith("long/0") and len(its) < 40


@pytest.mark.parametrize(
    "given", ["RANK=2 WORLD_SIZE=2", "RANK=x WORLD_SIZE=2", "RANK=-1 WORLD_SIZE=2", "WORLD_SIZE=0"]
)
def test_an_environment_names_a_process_or_is_refused(monkeypatch, given):
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place() == checked_place() == Alone(5, 8, 1) and "5 of 8" in str(place())
    monkeypatch.delenv("LOCAL_RANK")
    for setting in given.split():
        monkeypatch.setenv(*setting.split("="))
    assert place() == Alone()
    with pytest.raises(UserError, match="no process"), torchrun_group():
        pass
