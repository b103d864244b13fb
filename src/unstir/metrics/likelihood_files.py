"""The likelihood of a model's data as files: figures with their protocol, and the curve of where the bits go."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unstir.data import Store
from unstir.metrics.likelihood import Likelihood, Protocol, check, likelihood, save
from unstir.pictures.charts import likelihood_curves
from unstir.progress import Showing, silently
from unstir.runs.files import check_writable, make_folder, replacing
from unstir.runs.model import Model

FOLDER = "likelihood"
USUAL = Protocol()


def save_likelihood(
    model: Model,
    store: Store,
    splits: Sequence[str] = ("held_out",),
    protocol: Protocol = USUAL,
    folder: Path | None = None,
    *,
    showing: Showing = silently,
) -> tuple[dict[str, Likelihood], Path]:
    """The bound on each of the ``splits`` by the ``protocol``, and the picture of the curves.

    Written are SPLIT.json and curve.png, by default in the folder likelihood of the run; fewer calls or images than all
    are in the names. Raises UserError, before anything is computed, for what cannot be computed or written.
    """
    protocols = {split: replace(protocol, split=split) for split in splits}
    for each in protocols.values():
        check(model, store, each)
    folder = folder or model.folder / FOLDER
    check_writable(folder, "name another with --out")
    make_folder(folder)
    calls, num, found = protocol.calls, protocol.num, {}
    suffix = (f"-{calls}-calls" if calls else "") + (f"-{num}-images" if num else "")
    for split, each in protocols.items():
        with showing(f"bounding {split}", "network calls") as progress:
            found[split] = likelihood(model, store, each, progress=progress)
        save(folder / f"{split}{suffix}.json", found[split])
    curve = folder / f"curve{suffix}.png"
    with replacing(curve) as partial:
        likelihood_curves({name: (r.times, r.curve, r.decoder, r.total) for name, r in found.items()}, partial)
    return found, curve
