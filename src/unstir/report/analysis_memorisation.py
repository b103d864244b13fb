"""Whether samples are copies of training images, or lie nearer to them than new images do."""

from collections.abc import Sequence

from unstir.metrics.memorisation import Memorisation
from unstir.report.facts import Facts
from unstir.report.statement import Statement
from unstir.report.wording import count, with_error
from unstir.significance import Effect, Precedence, Shift, exact, largest_of, tail_deviate


def memorisation(facts: Facts) -> list[Statement]:
    """Sentences on copies, and on nearness as a whole, from the newest evaluation that looked for them."""
    found = next((each.memorisation for each in reversed(facts.by_step) if each.memorisation is not None), None)
    if found is None:
        text = "Whether samples are copies of training images was not measured; `unstir evaluate RUN` does it."
        return [Statement("copies", "memorisation", "neighbours", "undecided", text)]
    copies = [(space.name, space.copies) for space in found.spaces if space.copies is not None]
    nearness = [(space.name, space.relative) for space in found.spaces if space.relative is not None]
    if not copies or not nearness:
        text = f"Whether samples are copies is undecided: {count(found.num, 'sample')} and "
        text += f"{count(found.num_held_out, 'held-out image')} are too few."
        return [Statement("copies", "memorisation", "neighbours", "undecided", text)]
    return [_copies(found, copies), _nearer(nearness)]


def _copies(found: Memorisation, tests: Sequence[tuple[str, Precedence]]) -> Statement:
    """More samples than new images would have at a training image of their own: the exact test of `precedence`."""
    space, test = min(tests, key=lambda each: each[1].p)
    more = test.count - test.expected
    surplus = exact(more, test.p, "precedence test", len(tests))
    said = f"{test.count:,} of {count(found.num, 'sample')} lie closer to one single training image than new "
    said += f"images do, of which {test.expected:.2g} would"
    by = f"by {space}, p = {test.p:.2g}"
    if surplus.positive:
        text = f"Samples are copies: {said} ({by}; {with_error(more, surplus.error)} too many)."
        return Statement("copies", "memorisation", "neighbours", "bad", text, surplus)
    if found.verdict == "copies":
        text = f"Some samples may be copies: {said} ({by}). Chance does that once in a hundred runs or less; at the "
        text += "level of this page it is undecided"
    else:
        text = f"No copies show, though that there are none is undecided: {said} ({by})"
        text += "" if test.least is None else f"; fewer than {test.least:,} of them would not show"
    return Statement("copies", "memorisation", "neighbours", "undecided", f"{text}.", surplus)


def _nearer(tests: Sequence[tuple[str, Shift]]) -> Statement:
    """Whether samples as a whole lie nearer, the distance taken relative to the neighbourhood: Mann & Whitney 1947."""
    tested = [(space, test, _beyond_half(test, len(tests))) for space, test in tests]
    space, test, apart = max(tested, key=lambda each: abs(each[2].z or 0.0))
    share = with_error(100 * test.probability, 100 * apart.error)
    text = f"Samples lie nearer to their nearest training image than held-out images in {share}% of comparisons by "
    text += space
    if not apart.decided:
        text += "; whether that is more or less than half is undecided."
    elif apart.value > 0:
        text += "; smoother or more alike samples do so too, so this alone does not show copying."
    else:
        text += ", less than half, which copies would not."
    return Statement("nearer", "memorisation", "neighbours", "neutral" if apart.decided else "undecided", text, apart)


def _beyond_half(test: Shift, choices: int) -> Effect:
    """The share of comparisons beyond one half; its z is the lesser of what the test and the standard error say."""
    value, error = test.probability - 0.5, test.standard_error
    z = tail_deviate(test.p)
    if error > 0 and abs(value / error) < abs(z):
        z = value / error
    return Effect(value=value, error=error, z=largest_of(choices, z), test="Mann-Whitney")
