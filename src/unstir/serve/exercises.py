"""Six exercises, checked by what the chapters computed: set the controls of a chapter, and ask."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch

from unstir import parts
from unstir.diffusion.classes import decided
from unstir.errors import UserError
from unstir.progress import counting
from unstir.serve.chapters import SCHEDULES, STOPS, ChapterValues, forward, guidance, predict, process_of, reverse
from unstir.serve.state import Answer, Frames, State


class ExerciseValues(ChapterValues):
    """An exercise, and the answer: the place of the chapter's slider with its other controls."""

    exercise: Literal["balance", "schedule", "step", "noise", "class", "guidance"]
    t: int

    def of_chapter(self) -> ChapterValues:
        """What the chapter was computed for."""
        return ChapterValues.model_construct(**{name: getattr(self, name) for name in ChapterValues.model_fields})


Checked = tuple[Collection[int], str]
"""The places of the slider that are right, and a line about the one that was chosen."""


def check(state: State, values: ExerciseValues) -> Frames:
    """Whether the answer is right, and a line that says why, or what to look at."""
    places, line = EXERCISES[values.exercise](state, values)
    right, nearest = values.t in places, min(places, key=lambda t: abs(t - values.t), default=values.t)
    further = "" if nearest == values.t else f" Go to {'larger' if nearest > values.t else 'smaller'} t."
    further = further if places else " No t is right with these controls; change another one."
    yield {"right": right, "line": f"{'Right' if right else 'Not yet'}. {line}{further}"}


def _balance(state: State, values: ExerciseValues) -> Checked:
    """Signal and noise are of one size where log SNR = 0."""
    places = _frames(forward(state, values))
    _at(places, values.t)
    log_snr = process_of(state.model(values.model), values).schedule.log_snr
    sizes = f"At t = {values.t} the signal-to-noise ratio is {math.exp(log_snr(values.t)):.2g}."
    return _crosses(places, lambda frame: log_snr(frame["t"])), sizes


def _schedule(state: State, values: ExerciseValues) -> Checked:
    """The schedule that keeps the most of the image at T / 2."""
    model = state.model(values.model)
    half = model.process.T // 2
    best = max(parts.find("schedule", name)(model.process.T).log_snr(half) for name in SCHEDULES)
    kept = process_of(model, values).schedule.log_snr(half)
    return [values.t] * (
        kept >= best
    ), f"With this schedule the signal-to-noise ratio at t = {half} is {math.exp(kept):.3g}."


def _step(state: State, values: ExerciseValues) -> Checked:
    """The step back whose mean takes as much of the image as of x_t."""
    places = [frame for frame in _frames(forward(state, values)) if frame["t"]]
    here = _at(places, values.t)
    of_image, of_x_t = here["at_x_0"], here["at_x_t"]
    line = f"The mean of the step from {values.t} to {here['s']} takes {of_image:.3g} of x_0 and {of_x_t:.3g} of x_t."
    return _crosses(places, lambda frame: frame["at_x_0"] - frame["at_x_t"]), line


def _noise(state: State, values: ExerciseValues) -> Checked:
    """The time at which the network is worst at the noise."""
    places = _frames(predict(state, values.of_chapter()))
    here = _at(places, values.t)
    of_noise, of_image = here["eps_error"], here["x0_error"]
    line = f"At t = {values.t} the error is {of_noise:.3g} of the noise and {of_image:.3g} of the image."
    return _near(places, lambda frame: float(frame["eps_error"])), line


def _class(state: State, values: ExerciseValues) -> Checked:
    """The time from which on the class that is drawn in the end is the most probable one."""
    model, places = state.model(values.model), _frames(reverse(state, values.of_chapter()))
    if not model.labels.count:
        raise UserError("model", values.model, "knows no classes", "choose another")
    here = _at(places, values.t)
    names = model.labels.names or [*map(str, range(model.labels.count))]
    best, chance = max(enumerate(here["probabilities"]), key=lambda pair: pair[1])
    since = decided([frame["t"] for frame in places], torch.tensor([frame["probabilities"] for frame in places]))
    line = f"After the step from t = {values.t} the most probable class is {names[best]}, with {chance:.0%}."
    return [since], line


def _guidance(state: State, values: ExerciseValues) -> Checked:
    """The time at which the class changes the estimate most."""
    places = _frames(guidance(state, values.of_chapter()))
    here = _at(places, values.t)
    line = f"At t = {values.t} the two estimates are {here['distance']:.3g} apart."
    return _near(places, lambda frame: float(frame["distance"])), line


EXERCISES: dict[str, Callable[[State, ExerciseValues], Checked]] = {
    "balance": _balance,
    "schedule": _schedule,
    "step": _step,
    "noise": _noise,
    "class": _class,
    "guidance": _guidance,
}


def _frames(lines: Any) -> list[Answer]:
    """The frames of a chapter, each counted, so that who leaves need not wait for all."""
    with counting("checking", "places") as count:
        frames = list[Answer]()
        for place, line in enumerate(lines):
            count(place, STOPS + 1)
            frames.append(line)
    return [line for line in frames if "t" in line]


def _at(places: Sequence[Answer], t: int) -> Answer:
    """The frame of a time; UserError where the slider has no such place."""
    if (here := next((frame for frame in places if frame["t"] == t), None)) is None:
        raise UserError("t", t, "is no place of this slider")
    return here


def _near(places: Sequence[Answer], value: Callable[[Answer], float]) -> list[int]:
    """The place at which the value is greatest, and those beside it."""
    values = [value(frame) for frame in places]
    best = values.index(max(values))
    return [frame["t"] for frame in places[max(best - 1, 0) : best + 2]]


def _crosses(places: Sequence[Answer], value: Callable[[Answer], float]) -> list[int]:
    """The places between which and one beside them the value changes its sign."""
    above = [value(frame) > 0 for frame in places]
    return [frame["t"] for i, frame in enumerate(places) if len(set(above[max(i - 1, 0) : i + 2])) == 2]
