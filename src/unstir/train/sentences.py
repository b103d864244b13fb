"""What to say of a run before and after it is trained."""

from unstir.runs.run import Run
from unstir.train.state import State


def introduction(run: Run, state: State) -> str:
    """What is about to be trained on what, in a line."""
    count, data = sum(p.numel() for p in state.net.parameters()), run.data
    kind = run.config.train.dtype + (", compiled," if run.config.train.compile in ("yes", "graphs") else "")
    device, num = state.window.device, state.processes
    where = f"{num} processes, {device.type}" if num > 1 else str(device)
    how = f" by the recipe {run.config.recipe}" if run.config.recipe else ""
    if run.config.kind.has_teacher:
        how = f" that learns from {run.config.train.init}"
    new = "" if state.step else f"a new run{how}, "
    goal = f"of {run.length}" if state.step <= run.length else f"beyond the {run.length} asked for"
    return (
        f"{run.path}: {new}{count:,} parameters in {kind} on {where}; {data.counts['train']} "
        f"training and {data.counts['held_out']} held-out images of {'x'.join(map(str, data.shape))}; "
        f"step {state.step} {goal}"
    )


def conclusion(run: Run, step: int) -> str:
    """What to say of a run that has nothing left to do at ``step``, and how to make it longer."""
    goal, whole = 2 * step, Run.open(run.path).length
    if whole > step:
        return (
            f"{run.path} is at step {step} of {whole}, beyond the {run.length} asked for: "
            f"nothing to do. To go on: unstir train --out {run.path}"
        )
    options, warmup = f'--train.length "{goal} steps"', run.steps_in(run.config.train.warmup)
    if run.config.train.lr_schedule == "cosine" and goal > warmup + run.steps_in(run.config.train.lr_period):
        options += f' --train.lr_period "{goal - warmup} steps"'
    beyond = (
        f", beyond the {run.length} asked for: nothing to do, for a run keeps its steps" if run.length < step else ""
    )
    return (
        f"{run.path} is finished, at step {step}{beyond}. To go on: unstir train --out {run.path} "
        f"{options}; to begin anew: another --out"
    )
