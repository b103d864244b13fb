"""What the processes of a job exchange, and what each of them is told; and that one alone exchanges nothing."""

import itertools
import math
import re

import pytest
import torch
from unstir.distributed import place, processes
from unstir.distributed.join import joined
from unstir.distributed.place import Place, checked_place

from together import together
from unstir.errors import UserError


class Given:
    def __init__(self, rank, size):
        self.place = Place(rank, size)


def fail():
    raise UserError("a mistake")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shares_cover_all_slots_once_and_differ_by_one_at_most(monkeypatch, size):
    for total in (size, size + 1, 13, 128):
        parts = []
        for rank in range(size):
            monkeypatch.setattr(processes, "present", Given(rank, size))
            parts.append(range(total)[processes.share(total)])
        assert list(itertools.chain(*parts)) == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_is_the_first_and_exchanges_nothing():
    rows = (torch.arange(3), torch.rand(3, 2))
    with joined():
        assert (processes.rank(), processes.size(), processes.is_first()) == (0, 1, True)
        assert processes.share(5) == slice(0, 5)
        assert processes.of_first({"a": (1, 2)}) == {"a": (1, 2)} and processes.of_all(4) == [4]
        assert processes.rows_of_all(rows, slice(0, 3), 3) is rows
        processes.agree({"a": 1}, "")
        processes.check_alike({"a": torch.rand(3)}, "")
        processes.wait_for_all()
        vote = processes.Vote()
        assert [vote(None), vote(15), vote(None)] == [None, 15, None]


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
        with joined("cpu"), joined("cuda:3"):
            part = processes.share(total)
            rows = processes.rows_of_all((times[part], losses[part], figures[part]), part, total)
            same = [
                torch.equal(a.nan_to_num(7), b.nan_to_num(7))
                for a, b in zip(rows, (times, losses, figures), strict=True)
            ]
            kinds = [a.dtype == b.dtype for a, b in zip(rows, (times, losses, figures), strict=True)]
            given = {} if rank else like
            taken = processes.tensors_of_first(given)
            arrived = [torch.equal(taken[key], like[key]) and taken[key].dtype == like[key].dtype for key in like]
            vote = processes.Vote()
            votes = [vote(15 if (rank, call) == (1, 2) else None) for call in range(6)]
            drifted = {key: t.clone() for key, t in like.items() if key != "none"}
            alike = refusal(processes.check_alike, drifted, "remedy")
            if rank == 2:
                drifted["weight"].view(torch.int32)[2, 1] ^= 1
            return {
                "first": processes.of_first({"é": [rank, None]}),
                "all": processes.of_all("x" * rank),
                "rows": same + kinds + arrived,
                "votes": [*votes, vote.result()],
                "alike": alike,
                "drifted": refusal(processes.check_alike, drifted, "remedy"),
                "agreed": refusal(processes.agree, {"a": 1, "b": [rank // 3]}, "remedy"),
                "ends": refusal(processes.agree, {"path": f"{'long/' * 20}{rank // 2}"}, "remedy"),
                "differing": refusal(processes.agree, {"a": 1, **({"lr": 2} if rank == 1 else {})}, "remedy"),
            }

    found = together(3, work, tmp_path)
    assert found[0] == found[1] == found[2]
    (first, *_) = found
    assert first["first"] == {"é": [0, None]} and first["all"] == ["", "x", "xx"]
    assert first["rows"] == [True] * 9
    assert first["votes"] == [None, None, None, 15, None, None, None]
    assert first["alike"] == "" and first["agreed"] == ""
    assert first["drifted"] == (
        "process 2 of 3 (counted from 0) differs from the first in 1 of 2 tensors, such as weight; remedy"
    )
    assert first["differing"] == "process 1 of 3 (counted from 0) differs from the first: lr is 2, not None; remedy"
    (its, due) = re.findall(r"'([^']*)'", first["ends"])
    assert its.endswith("long/1") and due.endswith("long/0") and len(its) < 40


@pytest.mark.parametrize(
    "given", ["RANK=2 WORLD_SIZE=2", "RANK=x WORLD_SIZE=2", "RANK=-1 WORLD_SIZE=2", "WORLD_SIZE=0"]
)
def test_an_environment_that_names_no_process_is_refused(monkeypatch, given):
    for each in given.split():
        monkeypatch.setenv(*each.split("="))
    assert place.place() == Place()
    with pytest.raises(UserError, match="name no process of a job"):
        checked_place()
    with pytest.raises(UserError, match="name no process of a job"), joined():
        pass


def test_places_are_those_of_the_environment(monkeypatch):
    assert place.place() == Place(0, 1, 0)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place.place() == checked_place() == Place(5, 8, 1)
    assert str(place.place()) == "process 5 of 8 (counted from 0)"
