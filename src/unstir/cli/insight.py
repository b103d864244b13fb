"""`unstir doctor` and `unstir report`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unstir.cli.app import app, show, show_result
from unstir.cli.options import ChartFormat, RunFolder, StoreFolder, check_one
from unstir.errors import UserError
from unstir.metrics.request import SEEDS, EvaluationRequest
from unstir.progress import counted, waiting

if TYPE_CHECKING:
    from unstir.insight.doctor import Report


@app.command
def doctor(run: RunFolder, /, *, store: StoreFolder = None, samples: bool = True, json_: bool = False) -> int:
    """Examine a run, finished or in training: what is wrong, the measurement, and the setting that helps.

    It draws images, in seconds. The status is 1 for a problem, else 0; warnings and notes do not count.

    Example: `unstir doctor runs/mnist`

    Args:
        samples: Draw images; --no-samples is quicker and reads files, settings and metrics alone.
        json_: Print the findings as JSON.
    """
    from unstir.insight.doctor import diagnose

    report = diagnose(run, store=store, samples=samples)
    show_result({"healthy": report.healthy, **vars(report)}, json_, *_lines(report, str(run)))
    return 0 if report.healthy else 1


def _lines(report: "Report", run: str) -> list[str]:
    from unstir.insight.findings import by_reason, causes

    lines = [] if report.findings else ["nothing found"]
    for cause in causes(report.findings):
        finding = cause.finding
        symptoms = [("explains", f"{each.check}: {each.says}; {each.evidence}") for each in cause.symptoms]
        parts = [("measured", finding.evidence), *symptoms, ("remedy", finding.remedy)]
        lines.append(f"{cause.severity}  {finding.check}: {finding.says}")
        lines += [*(f"   {label:10}{_typed(text, run)}" for label, text in parts), ""]
    lines.append(f"checked   {', '.join(report.checked)}")
    if report.skipped:
        listed = "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason(report.skipped).items())
        lines.append(f"skipped   {_typed(listed, run)}")
    left, seconds = report.forecast["steps_left"], report.forecast["seconds_left"]
    how_long = "at a speed that is not known yet" if seconds is None else waiting(seconds)
    forecast = f"{counted(left, 'step')} left, {how_long}" if left else "finished"
    return [*lines, f"forecast  {forecast}"]


def _typed(text: str, run: str) -> str:
    from unstir.insight.statement import typed

    return re.sub(r"`([^`]+)`", lambda code: typed(code[1], run), text)


@app.command
def report(
    runs: list[Path] | None = None,
    /,
    *,
    images: list[Path] | None = None,
    label: str | None = None,
    flip: bool = False,
    out: Path | None = None,
    measure: bool = True,
    num: int = 0,
    seeds: int | None = None,
    export: Path | None = None,
    figures: tuple[str, ...] = (),
    charts: Path | None = None,
    format: ChartFormat = "png",
    store: StoreFolder = None,
    live: bool = False,
) -> int:
    """Write what a run shows as one page: RUN/report.html, a single file that works offline.

    The page has samples next to real images, quality by step and by sampler, nearest training images, an analysis,
    curves and the doctor's findings. Missing figures are measured first, as `unstir evaluate` does, and kept. Several
    runs share a page.

    Example: `unstir report runs/mnist`

    Example: `unstir report runs/small-0 runs/small-1 runs/large-0 runs/large-1 --export t.tex --figures fd kid`

    Example: `unstir report --images made/ --store data/mnist`

    Args:
        runs: Folder of the run, or folders of several runs to compare.
        images: Images of any program in place of a run, as `unstir evaluate` takes them. The page leaves out training.
        label: With --images the class that all of them show.
        flip: With --images: count mirror images of training images as copies too.
        out: The HTML file; by default report.html in the folder of the run or images, comparison.html for several runs.
            Only an earlier page is replaced.
        measure: Measure what is missing; --no-measure shows only what was measured before.
        num: Images per seed for the figures; 0: as many as `unstir evaluate` takes.
        seeds: Sets of images for the error bar of a figure; by default as many as `unstir evaluate` takes.
        export: Also write the figures with their errors and protocols to this .csv, .md or .tex file, or to all three
            in this folder.
        figures: With --export of runs: these figures alone, such as fd or classifier/kid, in a row for each setting.
            Runs that differ in the seed alone are one setting: it has the mean and the deviation over trainings.
        charts: Also write each chart of the runs as a file in this folder.
        format: Of these charts.
        live: Write RUN/live.html in its place: a page with the network in it, which draws images in the browser. It
            takes --out alone.
    """
    from unstir.insight.write import write_images_report, write_report

    names = [name for word in figures for name in word.split(",")]
    _check(bool(runs), bool(images), label is not None or flip, any((not measure, names, charts, live)))
    if live:
        page, *others = _live(runs or [], out, not measure, names, charts, export, store, num, seeds)
    elif images:
        request = EvaluationRequest(num=num, seeds=seeds, label=label, flip=flip, store=store)
        page, *others = write_images_report(images, request, out, exported=export)
    else:
        sets = SEEDS if seeds is None else seeds
        asked: dict[str, Any] = {"exported": export, "figures": names, "charts": charts, "format": format}
        page, *others = write_report(runs or [], out, store=store, measuring=measure, num=num, seeds=sets, **asked)
    show(f"report   {page} ({page.stat().st_size / 1e3:,.0f} kB)", *(f"figures  {file}" for file in others))
    return 0


def _live(runs: list[Path], out: Path | None, *others: object) -> list[Path]:
    from unstir.runs.run import Run
    from unstir.serve.live import write_live

    if len(runs) != 1 or any(others):
        raise UserError("--live is of one run, and takes --out alone")
    return [write_live(Run.open(runs[0]).model(device="cpu"), out)]


def _check(runs: bool, images: bool, of_images: bool, of_runs: bool) -> None:
    check_one(runs, images)
    if images and of_runs:
        raise UserError("--no-measure, --figures, --charts and --live are of runs; leave them out")
    if runs and of_images:
        raise UserError("--label and --flip are of --images; leave them out")
