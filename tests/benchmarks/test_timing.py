"""Times of calls that take turns, and the tables that are made of them."""

import pytest

from peers import tables
from peers.tables import DIFFUSERS, LUCIDRAINS, OURS, Section
from peers.timing import Contestant, Timed, in_turns, spread


def timed(side, setting, seconds, *, images=64.0, flops=0.0, dtype="float32"):
    return Timed(Contestant(side, setting, lambda: None, images, flops, dtype), tuple(seconds))


def section(title="Training step", limits=None):
    rows = [
        timed(OURS, "float32", [1.0, 2.0, 4.0], flops=1e9),
        timed(OURS, "bfloat16", [0.5, 1.0, 2.0], flops=1e9, dtype="bfloat16"),
        timed(DIFFUSERS, "its default", [2.0, 4.0, 16.0], flops=1e9),
        timed(DIFFUSERS, "fused", [1.0, 3.0, 4.0], flops=1e9),
    ]
    return Section(title, "tiny", "How.", rows, rows[2], {"float32": 1e9} if limits is None else limits)


def test_each_round_takes_every_call_and_begins_with_another_and_the_first_counts_not():
    taken, now = [], [0.0]

    def call(name, seconds):
        def run():
            taken.append(name)
            now[0] += seconds

        return run

    finished = []
    both = [Contestant("a", "", call("a", 1.0), 1), Contestant("b", "", call("b", 2.0), 1, times=10.0)]
    a, b = in_turns(both, 2, clock=lambda: now[0], finish=lambda: finished.append(len(taken)))
    assert taken == ["b", "a", "a", "b", "b", "a"]
    assert a.seconds == (1.0, 1.0) and b.seconds == (20.0, 20.0)  # of a whole job of ten such calls
    assert finished == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]  # before and after each


def test_a_ratio_is_taken_within_a_round():
    drifting = timed("a", "", [1.0, 10.0, 100.0]), timed("b", "", [2.0, 20.0, 300.0])
    assert drifting[0].faster_than(drifting[1]) == (2.0, 2.0, 2.5)
    assert spread([7.0]) == (7.0, 7.0, 7.0) and spread([1.0, 2.0, 3.0, 4.0]) == (2.5, 1.75, 3.25)


def test_a_row_has_its_time_its_speed_its_ratio_and_its_share_of_the_limit_of_its_arithmetic():
    text = section().markdown()
    assert "| unstir, float32 | 2 s (1.5–3) | 32 | **2** (2–3) | 50% |" in text
    assert "| unstir, bfloat16 | 1 s (0.75–1.5) | 64 | **4** (4–6) |  |" in text  # a limit that was not measured
    assert "| diffusers, its default | 4 s (3–10) | 16 | 1 | 25% |" in text
    assert "times diffusers, its default" in text and text.startswith("### Training step: tiny\n\nHow.\n\n")
    assert timed("a", "", [1.0]).share({"float32": 1e9}) is None  # operations that were not counted


def test_the_headline_has_our_fastest_setting_against_the_default_and_the_fastest_of_others():
    row = tables.headline(
        [section(), Section("Dropout masks", "", "", [timed(OURS, "", [1.0])] * 2, timed(OURS, "", [1.0]), {})]
    )
    assert row.splitlines()[2:] == ["| Training step | tiny | bfloat16 | **4** (4–6) | **2** (2–2.5) |  |"]
    other = section()
    other.rows.append(timed(LUCIDRAINS, "", [0.25, 0.5, 1.0]))
    assert tables.headline([other]).endswith("| **0.5** (0.5–0.5) |")


def test_the_parts_of_a_step_are_shares_of_the_first_setting():
    step = timed(OURS, "", [1.0], images=64)
    masks = timed(OURS, "", [0.02], images=64)
    both = [
        Section(title, "", "", [row], row, {}) for title, row in (("Training step", step), ("Dropout masks", masks))
    ]
    assert tables.spent(both) == "Of our training step 2.00% goes into dropout masks."
    assert tables.spent(both[:1]) == tables.spent(both[1:]) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2 s (2–2)"), (0.01234, "12.3 ms (12.3–12.3)"), (2e-5, "20 µs (20–20)"), (1234.5, "1,234 s")],
)
def test_times_are_in_the_unit_that_suits_them(seconds, text):
    assert tables.seconds(timed("a", "", [seconds])).startswith(text)


def test_tables_replace_what_stood_there_and_nothing_else(tmp_path):
    page, (begin, end) = tmp_path / "page.md", tables.between("cpu")
    others = "\n".join(tables.between("cuda"))
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n{others}\n")
    tables.write(page, "cpu", "| new |\n")
    once = page.read_text()
    assert once == f"before\n{begin}\n\n| new |\n\n{end}\nafter\n{others}\n"
    tables.write(page, "cpu", "| new |")
    assert page.read_text() == once


@pytest.mark.parametrize("text", ["", "{begin}", "{end} {begin}", "{begin} {end} {begin} {end}", "{end} {begin} {end}"])
def test_a_page_without_one_place_for_the_tables_is_left_alone(tmp_path, text):
    page, (begin, end) = tmp_path / "page.md", tables.between("cpu")
    page.write_text(text.format(begin=begin, end=end))
    with pytest.raises(SystemExit, match="has not one place for these tables; put two lines there:\n<!-- cpu"):
        tables.write(page, "cpu", "new")
    assert page.read_text() == text.format(begin=begin, end=end)
