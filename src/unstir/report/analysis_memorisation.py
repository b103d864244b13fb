"""Whether samples are copies of training images, or lie nearer to them than new images do."""

from typing import Any

from unstir.report.facts import Facts
from unstir.report.statement import Statement, Verdict, not_measured
from unstir.report.wording import count, with_error
from unstir.significance import Effect, largest_of, tail_deviate


def memorisation(facts: Facts) -> list[Statement]:
    """Sentences on copies, and on nearness as a whole, from the newest evaluation that looked for them."""
    found = next((each.memorisation for each in reversed(facts.by_step) if each.memorisation is not None), None)
    if found is None:
        text = "Whether samples are copies of training images was not measured; `unstir evaluate RUN` does it."
        return [not_measured("copies", "memorisation", "neighbours", text)]
    spaces = [space for space in found["spaces"] if space["copies"] is not None and space["relative"] is not None]
    if not spaces:
        text = f"Whether samples are copies is undecided: {count(found['num'], 'sample')} and "
        text += f"{count(found['num_held_out'], 'held-out image')} are too few."
        return [not_measured("copies", "memorisation", "neighbours", text)]
    return [_copies(found, spaces), _nearer(spaces)]


def _copies(found: dict[str, Any], spaces: list[dict[str, Any]]) -> Statement:
    """More samples than new images would have at a training image of their own: the exact test of `precedence`."""
    space = min(spaces, key=lambda each: float(each["copies"]["p"]))
    test, more = space["copies"], space["copies"]["count"] - space["copies"]["expected"]
    z = largest_of(len(spaces), tail_deviate(test["p"]))
    # the test is exact and has no error of its own; the one given is what the excess and its z imply
    surplus = Effect(value=more, error=abs(more / z) if z else 0.0, z=z, test="precedence test")
    size = f"{test['count']:,} of {count(found['num'], 'sample')}"
    by = f"by {space['name']}, p = {test['p']:.2g}"
    if surplus.decided and more > 0:
        text = f"Samples are copies: {size} lie closer to one single training image than new images do, of which "
        text += f"{test['expected']:.2g} would ({by}; {with_error(more, surplus.error)} too many)."
        return _made("copies", text, "bad", surplus)
    surplus = Effect(value=more, error=surplus.error, z=0.0, test=surplus.test) if surplus.decided else surplus
    said = f"{size} lie closer to one single training image than new images do, of which {test['expected']:.2g} would"
    if found["verdict"] == "copies":
        text = f"Some samples may be copies: {said} ({by}). Chance does that once in a hundred runs or less; at the "
        text += "level of this page it is undecided"
        return _made("copies", f"{text}.", "undecided", surplus)
    text = f"No copies show, though that there are none is undecided: {said} ({by})"
    if test["least"] is not None:
        text += f"; fewer than {test['least']:,} of them would not show"
    return _made("copies", f"{text}.", "undecided", surplus)


def _nearer(spaces: list[dict[str, Any]]) -> Statement:
    """Whether samples as a whole lie nearer, the distance taken relative to the neighbourhood: Mann & Whitney 1947."""
    tested = [(space, _beyond_half(space["relative"], len(spaces))) for space in spaces]
    space, apart = max(tested, key=lambda pair: abs(pair[1].z or 0.0))
    share = with_error(100 * space["relative"]["probability"], 100 * apart.error)
    than = f"their nearest training image than held-out images in {share}% of comparisons by {space['name']}"
    if not apart.decided:
        text = f"Samples lie nearer to {than}; whether that is more or less than half is undecided."
        return _made("nearer", text, "undecided", apart)
    if apart.value > 0:
        text = f"Samples lie nearer to {than}; smoother or more alike samples do so too, so this alone is no copying."
    else:
        text = f"Samples lie nearer to {than}, less than half, which copies would not."
    return _made("nearer", text, "neutral", apart)


def _beyond_half(test: dict[str, float], choices: int) -> Effect:
    """The share of comparisons beyond one half; its z is the lesser of what the test and the standard error say."""
    value, error = test["probability"] - 0.5, test["standard_error"]
    z = tail_deviate(test["p"])
    if error > 0 and abs(value / error) < abs(z):
        z = value / error
    return Effect(value=value, error=error, z=largest_of(choices, z), test="Mann-Whitney")


def _made(name: str, text: str, verdict: Verdict, effect: Effect) -> Statement:
    return Statement(name=name, topic="memorisation", text=text, figure="neighbours", verdict=verdict, effect=effect)
