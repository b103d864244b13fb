"""What the documentation says to type is what torchrun takes: it reads options of unstir too, and refuses some."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from torch.distributed.run import parse_args

from unstir.cli.app import BY_SEVERAL

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
