"""Everything training holds between two steps, to a checkpoint and back.

The moving average of the weights is part of it: that is what a trained model is sampled from.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unstir.diffusion.loss import LossHistory
from unstir.runs import build
from unstir.runs.checkpoint import Checkpoint, DamagedError, environment
from unstir.runs.files import Kind, check, is_count, is_figures, is_number
from unstir.runs.run import Run
from unstir.runs.toml import to_dict
from unstir.theory.averages import WIDTHS
from unstir.train.optimizer import Muon, make_optimizer, matrices

WINDOW = ("steps", "loss", "mse", "bits", "grad_norm", "clipped")
COUNTERS = ("skipped", "skipped_in_a_row")
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam keeps of each parameter, apart from its number of steps


@dataclass
class State:
    """The mutable whole: weights, averages, moments, and the running figures, all on the training device.

    ``step`` counts optimiser steps taken. ``window`` holds sums since the last log line, by `WINDOW`: steps with finite
    gradients, then the loss, squared error, bound in bits, gradient norm and clipped steps among them. ``counters``,
    by `COUNTERS`, count steps skipped for a gradient that was not finite. ``history`` is what an importance sampler of
    times has seen, ``powers`` the power-function averages of `WIDTHS`, or none, ``teacher`` the network that a
    run with a teacher began with. ``logged`` and ``measured`` are the steps of the last lines in metrics.jsonl and
    held_out.jsonl, ``seconds`` is the time of training so far.
    """

    net: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    window: Tensor
    counters: Tensor
    history: LossHistory | None = None
    powers: tuple[nn.Module, ...] = ()
    teacher: nn.Module | None = None
    step: int = 0
    logged: int = 0
    measured: int = 0
    seconds: float = 0.0
    processes: int = 1

    @classmethod
    def initial(cls, run: Run, device: torch.device, processes: int = 1) -> "State":
        """The state of a run before its first step, which so many processes train."""
        train = run.config.train
        net = build.network(run.config, device)
        zeros = partial(torch.zeros, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        average = averaged_copy(net) if train.ema_decay else None
        by_losses = run.config.loss.times == "importance"
        history = LossHistory.empty(run.config.diffusion.T, device) if by_losses else None
        powers = tuple(averaged_copy(net) for _ in WIDTHS) if train.power_ema else ()
        teacher = averaged_copy(net) if run.config.kind.has_teacher else None
        figures = zeros(len(WINDOW)), zeros(len(COUNTERS))
        return cls(net, average, make_optimizer(net, train), *figures, history, powers, teacher, processes=processes)

    @property
    def sampling_net(self) -> nn.Module:
        """The network that grids and slim files are made from: the average where there is one."""
        return self.net if self.average is None else self.average

    def _tensors(self) -> dict[str, Tensor]:
        """What a full checkpoint holds besides the optimizer's moments, by the names that it has there."""
        tensors = _named(self._networks())
        if self.history is not None:
            tensors |= {"times.losses": self.history.losses, "times.counts": self.history.counts}
        return tensors

    def _networks(self) -> dict[str, nn.Module]:
        """The networks of this state, by the name of their part of a full checkpoint."""
        one_or_none = {"model": self.net, "ema": self.average, "teacher": self.teacher}
        return {name: net for name, net in one_or_none.items() if net is not None} | self._powers()

    def _powers(self) -> dict[str, nn.Module]:
        return {f"power.{width}": average for width, average in zip(WIDTHS, self.powers, strict=False)}

    def conditions(self) -> dict[str, Any]:
        """What bit-identity depends on besides the config: the environment and number of processes."""
        return {**environment(self.window.device), "processes": self.processes}

    def copied(self, run: Run) -> Callable[[], Checkpoint]:
        """What gives the full checkpoint of this moment, from any thread, even when this state has changed."""
        return self._full(run, *on_host(self._saved_tensors()))

    def uncopied(self, run: Run) -> Callable[[], Checkpoint]:
        """As `copied`, but of the tensors themselves: what it gives is to be written before the next step."""
        return self._full(run, self._saved_tensors(), lambda: None)

    def _saved_tensors(self) -> dict[str, Tensor]:
        tensors = self._tensors() | {"window": self.window, "counters": self.counters}
        for name, parameter in self.net.named_parameters():
            tensors |= {f"optimizer.{name}.{key}": t for key, t in self.optimizer.state[parameter].items()}
        return tensors

    def _full(self, run: Run, tensors: dict[str, Tensor], arrived: Callable[[], None]) -> Callable[[], Checkpoint]:
        """What gives the full checkpoint of ``tensors``, which are there when ``arrived`` returns."""
        window, counters = tensors.pop("window"), tensors.pop("counters")
        numbers = {"logged": self.logged, "measured": self.measured, "seconds": self.seconds}
        unread = self._saved(run, tensors, environment=self.conditions())

        def checkpoint() -> Checkpoint:
            arrived()
            sums = dict(zip(WINDOW, window.tolist(), strict=True))
            return replace(unread, state={"window": sums, "counters": counters.tolist(), **numbers})

        return checkpoint

    def to_slim(self, run: Run) -> Checkpoint:
        """The weights to sample from, and the power averages that others are made of."""
        tensors = _named({"model": self.sampling_net, **self._powers()})
        return self._saved(run, tensors, kind="slim", ema=self.average is not None)

    def _saved(self, run: Run, tensors: dict[str, Tensor], **fields: Any) -> Checkpoint:
        return Checkpoint(self.step, to_dict(run.config), tensors, data=run.data.plain(), **fields)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take initial weights."""
        for net in self._networks().values():
            net.load_state_dict(weights)

    def check(self, saved: Checkpoint) -> None:
        """Raise DamagedError where a checkpoint lacks a part of this state, or has one of another shape or dtype."""
        try:
            check(saved.state, STATE)
        except ValueError as error:
            raise DamagedError(f"the checkpoint of step {saved.step} is damaged: of its state, {error}") from None
        wanted = self._tensors()
        if saved.step > saved.state["counters"][0] or saved.part("optimizer"):  # a step was taken, not skipped
            momenta = matrices(self.net) if isinstance(self.optimizer, Muon) else {}
            for name, parameter in self.net.named_parameters():
                if name in momenta:
                    wanted[f"optimizer.{name}.momentum_buffer"] = parameter.detach()
                    continue
                wanted |= {f"optimizer.{name}.{key}": parameter.detach() for key in MOMENTS}
                wanted[f"optimizer.{name}.step"] = torch.zeros(())
        for name, like in wanted.items():
            given, due = (t if t is None else f"{t.dtype} {list(t.shape)}" for t in (saved.tensors.get(name), like))
            if given != due:
                wrong = f"{name} is {given}, {due} is due" if given else f"{name} is missing"
                raise DamagedError(f"the checkpoint of step {saved.step} is damaged: {wrong}")

    def restore(self, saved: Checkpoint) -> None:
        """Become what was saved, bit for bit; `check` says whether it can be."""
        self.step, self.logged, self.measured = saved.step, saved.state["logged"], saved.state["measured"]
        self.seconds = float(saved.state["seconds"])
        self.window.copy_(torch.tensor([saved.state["window"][name] for name in WINDOW], dtype=self.window.dtype))
        self.counters.copy_(torch.tensor(saved.state["counters"], dtype=self.counters.dtype))
        for part, net in self._networks().items():
            net.load_state_dict(saved.part(part))
        if self.history is not None:
            times = saved.part("times")
            self.history.losses.copy_(times["losses"])
            self.history.counts.copy_(times["counts"])
        self.optimizer.state.clear()
        for name, parameter in self.net.named_parameters():
            if moments := saved.part(f"optimizer.{name}"):
                self.optimizer.state[parameter] = {key: _laid_as(parameter, t) for key, t in moments.items()}


def _named(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{part}.{name}": t for part, net in networks.items() for name, t in net.state_dict().items()}


def _laid_as(like: Tensor, tensor: Tensor) -> Tensor:
    """A tensor on the device of ``like`` and, of one shape, in its memory order, as a fused optimizer pairs numbers."""
    moved = tensor.to(like.device)
    if tensor.shape != like.shape or moved.stride() == like.stride():
        return moved
    return torch.empty_like(like, dtype=moved.dtype).copy_(moved)


STATE: Mapping[str, Kind] = {
    # one sum is infinite where a step's loss was, its gradient still finite
    "window": lambda value: isinstance(value, dict) and is_figures([value.get(name) for name in WINDOW]),
    "counters": lambda value: isinstance(value, list) and len(value) == len(COUNTERS) and all(map(is_number, value)),
    **dict.fromkeys(("logged", "measured"), is_count),
    "seconds": is_number,
}
"""What a full checkpoint has to hold besides tensors, and of what kind each is."""


def on_host(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """Copies of tensors in the host's memory, as they are now, and what waits until they are there (from CUDA)."""
    device = next(iter(tensors.values())).device
    travels = device.type == "cuda"  # to pinned memory
    copies = {name: t.detach().to("cpu", non_blocking=travels, copy=True) for name, t in tensors.items()}
    if not travels:
        return copies, lambda: None
    return copies, torch.cuda.current_stream(device).record_event().synchronize


def averaged_copy(net: nn.Module) -> nn.Module:
    """A copy of the network to hold the average: in evaluation mode, without gradients."""
    return copy.deepcopy(net).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, decay: float, applied: Tensor) -> None:
    """average += (1 - decay) (net - average) for every parameter; buffers are copied.

    ``applied`` is a float scalar on the device, 1, or 0 for a skipped step, which leaves the average as it was.
    """
    ours, theirs = list[Tensor](average.parameters()), list[Tensor](net.parameters())
    weight = applied * (1 - decay)  # a tensor, so that the device is not waited for
    if applied.device.type == "cpu":  # in place, where a kernel per tensor costs nothing
        torch._foreach_lerp_(ours, theirs, [weight] * len(ours))
    else:
        moves = torch._foreach_sub(theirs, ours)
        torch._foreach_mul_(moves, weight)
        torch._foreach_add_(ours, moves, alpha=1)
    for mine, buffer in zip(average.buffers(), net.buffers(), strict=True):
        mine.copy_(buffer)
