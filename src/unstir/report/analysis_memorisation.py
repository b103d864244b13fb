"""Whether samples are copies of training images, or lie nearer to them than new images do."""

from typing import Any

from unstir.report.facts import Facts
from unstir.report.statement import Statement
from unstir.report.wording import count, with_error
from unstir.significance import Effect, exact, largest_of, tail_deviate


def memorisation(facts: Facts) -> list[Statement]:
    """Sentences on copies, and on nearness as a whole, from the newest evaluation that looked for them."""
    found = next((each.memorisation for each in reversed(facts.by_step) if each.memorisation is not None), None)
    if found is None:
        text = "Whether samples are copies of training images was not measured; `unstir evaluate RUN` does it."
        return [Statement("copies", "memorisation", "neighbours", "undecided", text)]
    spaces = [space for space in found["spaces"] if space["copies"] is not None and space["relative"] is not None]
    if not spaces:
        text = f"Whether samples are copies is undecided: {count(found['num'], 'sample')} and "
        text += f"{count(found['num_held_out'], 'held-out image')} are too few."
        return [Statement("copies", "memorisation", "neighbours", "undecided", text)]
    return [_copies(found, spaces), _nearer(spaces)]


def _copies(found: dict[str, Any], spaces: list[dict[str, Any]]) -> Statement:
    """More samples than new images would have at a training image of their own: the exact test of `precedence`."""
    space = min(spaces, key=lambda each: float(each["copies"]["p"]))
    test, more = space["copies"], space["copies"]["count"] - space["copies"]["expected"]
    surplus = exact(more, test["p"], "precedence test", len(spaces))
    said = f"{test['count']:,} of {count(found['num'], 'sample')} lie closer to one single training image than new "
    said += f"images do, of which {test['expected']:.2g} would"
    by = f"by {space['name']}, p = {test['p']:.2g}"
    if surplus.positive:
        text = f"Samples are copies: {said} ({by}; {with_error(more, surplus.error)} too many)."
        return Statement("copies", "memorisation", "neighbours", "bad", text, surplus)
    if found["verdict"] == "copies":
        text = f"Some samples may be copies: {said} ({by}). Chance does that once in a hundred runs or less; at the "
        text += "level of this page it is undecided"
    else:
        text = f"No copies show, though that there are none is undecided: {said} ({by})"
        text += "" if test["least"] is None else f"; fewer than {test['least']:,} of them would not show"
    return Statement("copies", "memorisation", "neighbours", "undecided", f"{text}.", surplus)


def _nearer(spaces: list[dict[str, Any]]) -> Statement:
    """Whether samples as a whole lie nearer, the distance taken relative to the neighbourhood: Mann & Whitney 1947."""
    tested = [(space, _beyond_half(space["relative"], len(spaces))) for space in spaces]
    space, apart = max(tested, key=lambda pair: abs(pair[1].z or 0.0))
    share = with_error(100 * space["relative"]["probability"], 100 * apart.error)
    text = f"Samples lie nearer to their nearest training image than held-out images in {share}% of comparisons by "
    text += f"{space['name']}"
    if not apart.decided:
        text += "; whether that is more or less than half is undecided."
    elif apart.value > 0:
        text += "; smoother or more alike samples do so too, so this alone does not show copying."
    else:
        text += ", less than half, which copies would not."
    return Statement("nearer", "memorisation", "neighbours", "neutral" if apart.decided else "undecided", text, apart)


def _beyond_half(test: dict[str, float], choices: int) -> Effect:
    """The share of comparisons beyond one half; its z is the lesser of what the test and the standard error say."""
    value, error = test["probability"] - 0.5, test["standard_error"]
    z = tail_deviate(test["p"])
    if error > 0 and abs(value / error) < abs(z):
        z = value / error
    return Effect(value=value, error=error, z=largest_of(choices, z), test="Mann-Whitney")
