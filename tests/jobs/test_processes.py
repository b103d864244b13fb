"""What the processes of a job exchange, are told and receive as signals; one alone leaves its process as it was."""

import itertools
import math
import os
import pty
import re
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.run import parse_args

import unstir
from conftest import tiny_config
from processes import Command, until
from together import together
from unstir import parts, torchrun_group
from unstir.chain import Chain
from unstir.cli.app import BY_SEVERAL
from unstir.errors import UserError
from unstir.group import Alone
from unstir.jobs.process import ENDED, SHOW_CURSOR, Signals, checked_place, place
from unstir.runs.checkpoint import newest


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
            pairs = list(zip(rows, (times, losses, figures), strict=True))
            same = [torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in pairs]
            kinds = [a.dtype == b.dtype for a, b in pairs]
            given = {} if rank else like
            taken = group.tensors_of_first(given)
            arrived = [torch.equal(taken[key], like[key]) and taken[key].dtype == like[key].dtype for key in like]
            votes = [group.vote({(1, 2): 15, (2, 4): 0}.get((rank, call))) for call in range(6)]
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
    assert first["votes"] == [None, None, None, 15, None, 0, None]
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


def state_of_process():
    """What a host would not want to be changed."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return dict(os.environ), handlers, torch.get_num_threads(), torch.distributed.is_initialized()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_in_a_process_of_somebody_elses_job_it_computes_alone(digits, tmp_path, monkeypatch, rank):
    place = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    before = state_of_process()
    done = unstir.train_run(tiny_config(digits, train__length="2 steps"), tmp_path / "run")
    assert done.finished and newest(done.run.checkpoints)[0].environment["processes"] == 1
    model = done.run.model(device="cpu")
    unstir.sample(model, unstir.Job(num=5, batch_size=2, chain=Chain(steps=2)), tmp_path / "made")
    assert len(list((tmp_path / "made").glob("0*.png"))) == 5
    assert state_of_process() == before


def test_it_trains_in_a_thread_that_may_have_no_handlers(digits, tmp_path):
    done = []
    config = tiny_config(digits, train__length="2 steps")
    thread = threading.Thread(target=lambda: done.append(unstir.train_run(config, tmp_path / "run").finished))
    thread.start()
    thread.join()
    assert done == [True]


def ended(*numbers, **environment):
    """The exit status of a child to which these signals come in a block of `Signals`, and what its terminal showed."""
    shown, terminal = pty.openpty()
    child = os.fork()
    if child == 0:
        os.dup2(terminal, 2)
        os.environ.update(environment)
        with Signals() as stop:
            for number in numbers:
                os.kill(os.getpid(), number)
            os._exit(stop.status - 100)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(terminal, b".")
    text = os.read(shown, 1 << 16)
    os.close(shown)
    os.close(terminal)
    return status, text.removesuffix(b".")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_the_process_with_a_line_and_the_cursor_shown(first):
    assert ended(first) == (first + 28, b"")
    line = (SHOW_CURSOR + ENDED).replace(b"\n", b"\r\n")
    assert ended(first, signal.SIGINT) == (130, line)


def test_of_several_processes_a_second_one_is_ignored_for_torchrun_repeats_it():
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    assert ended(signal.SIGTERM, signal.SIGTERM, **place) == (43, b"")


def test_afterwards_handlers_are_those_of_before():
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    with Signals() as stop:
        assert [signal.getsignal(number) for number in numbers] != before and stop.status == 0
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_another_command_ends_at_the_first(run, tmp_path, monkeypatch, number, status):

    def sampler(*_, **__):
        (tmp_path / "begun").touch()
        time.sleep(60)
        yield from ()

    real = parts.find
    monkeypatch.setattr(parts, "find", lambda kind, name: sampler if kind == "sampler" else real(kind, name))
    child = Command(["sample", run.path, "--num", 2], tmp_path, err=tmp_path / "err")
    until(lambda: (tmp_path / "begun").exists() or child.poll() is not None)
    child.send_signal(number)
    assert child.wait() == status
    said = (tmp_path / "err").read_text()
    assert said.count("\n") == (number == signal.SIGINT) and "Traceback" not in said


DOCS = Path(__file__).parents[2] / "docs"
TYPED = [
    line
    for name in ("scaling", "commands")
    for line in (DOCS / f"{name}.md").read_text().replace("\\\n", " ").splitlines()
    if re.match(r"(\w+=\S+ |srun )*torchrun -", line)
]


@pytest.mark.parametrize("line", TYPED)
def test_torchrun_takes_the_lines_of_the_documentation(line):
    words = shlex.split(line, comments=True)
    given = parse_args(words[words.index("torchrun") + 1 :])
    assert (given.training_script, given.module) == ("unstir", True) and given.training_script_args[0] in BY_SEVERAL


def test_lines_of_all_shared_commands_are_there():
    assert {command for command in BY_SEVERAL for line in TYPED if f"unstir {command}" in line} == set(BY_SEVERAL)


def test_options_that_torchrun_would_take_for_its_own_need_two_dashes_before():
    words = ["--nproc-per-node", "2", "-m", "unstir", "sample", "runs/digits", "--num", "9"]
    if sys.version_info < (3, 13):  # where argparse reads what begins like an option of its own
        with pytest.raises(SystemExit):
            parse_args(words)
    assert parse_args([*words[:3], "--", *words[3:]]).training_script_args == words[4:]
