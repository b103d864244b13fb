"""The help of `unstir train`: the settings by section, the most used first, with the values that would be used."""

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

from cyclopts.help import DefaultFormatter
from rich.markup import escape

from unstir.errors import printable
from unstir.runs import toml
from unstir.runs.config import Config

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

MOST_USED = (
    "--out", "--data.source", "--data.size", "--by-class", "--minutes", "--model.channels", "--model.num_classes",
    "--train.length", "--train.batch_size", "--train.lr", "--train.device", "--seed",
)  # fmt: skip
"""What most people set; the other settings stand by section."""
SETTINGS = "Parameters"  # the title under which cyclopts gathers all options


class _SettingsFormatter(DefaultFormatter):
    """Prints the settings in sections, with the values of a ``config`` as defaults, and names its ``source``."""

    config, source = Config(), ""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        if panel.title != SETTINGS:
            super().__call__(console, options, panel)
            return
        values, entries = toml.flat(self.config), {}
        for entry in panel.entries:
            name = entry.positive_names[0]
            value = values.get(name.removeprefix("--"))
            entries[name] = entry.copy(default=None if value in (None, "", []) else as_typed(value))
        most_used = f"Most used, with the values of {escape(printable(self.source))}"
        panels = {most_used: [entries.pop(name) for name in MOST_USED]}
        for section, settings in vars(self.config).items():
            if dataclasses.is_dataclass(settings):  # entitled with its name and the first words about it
                about = re.split("[:;,.]", inspect.getdoc(type(settings)) or "")[0].replace("`", "")
                own = [entry for name, entry in entries.items() if name.startswith(f"--{section}.")]
                panels[f"{section}: {about}"] = own
        for title, own in panels.items():
            super().__call__(console, options, panel.copy(title=title, entries=own))


FORMATTER = _SettingsFormatter()  # that of `unstir train`


def as_typed(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
