"""Images in tables: parquet files, and data sets of the Hugging Face Hub or saved by its library (extra [hf]).

The column of images is that which the table's own description calls an image, or else holds image files as bytes.
"""

import json
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from unstir.data.classes import KEYS
from unstir.data.images import FURTHER_COLUMN, LEFT_OUT, signature
from unstir.data.records import Records, Rows, split_of
from unstir.data.source import HELD_OUT_NAMES, PREFIX, UNKNOWN, Options
from unstir.errors import UserError
from unstir.parts import library

_CARD = "README.md"
_OTHER = f"{LEFT_OUT}: of another configuration than the card's default"
_POINTER = b"version https://git-lfs"  # starts what git keeps in the place of a large file


def of_clone(path: Path) -> list[Path]:
    """The parquet files in a clone of a data set of the Hub, with README.md or data/; none where there are none.

    They are those of the card's only or default configuration; without one, UserError where folders have several.
    """
    if (path / _CARD).is_file() and (named := _splits(_card(path / _CARD), path)):
        return [*named]
    files = _parquet_in(path if (path / _CARD).is_file() else path / "data")
    splits = {"train", *HELD_OUT_NAMES}
    folders = {file.parent.parent if file.parent.name.casefold() in splits else file.parent for file in files}
    if len(folders) > 1:
        several = ", ".join(sorted(str(folder.relative_to(path)) for folder in folders))
        raise UserError("source", path, f"holds several configurations: {several}", "give one of these folders")
    return files


def _parquet_in(folder: Path) -> list[Path]:
    files = folder.rglob("*.parquet")
    return sorted(file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts))


class Parquet(Records):
    """Parquet files with one table, of the splits that `split_of` reads in their names or folders."""

    kind = "parquet"

    def __init__(self, files: Sequence[Path], options: Options) -> None:
        super().__init__(options, sorted(files))
        self._reader = library("pyarrow.parquet", "hf", "this source")
        folder = Path(options.source)
        self._card = _card(folder / _CARD) if (folder / _CARD).is_file() else {}
        self._splits = _splits(self._card, folder)
        others = [file for file in _parquet_in(folder) if file not in self._splits] if self._splits else []
        self._notes = [(_OTHER, str(file.relative_to(folder))) for file in others]
        self.license = options.license or _short_text(self._card.get("license")) or UNKNOWN

    def rows(self) -> list[Rows]:
        """The rows of all files."""
        first, *others = map(self._of, self.files)
        return [first._replace(notes=[*first.notes, *self._notes]), *others]

    def _of(self, file: Path) -> Rows:
        try:
            opened = self._reader.ParquetFile(file)
            schema = opened.schema_arrow
            about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = about.get("info", {}).get("features") or _features(self._card)
            typed = {name: of.get("_type", "") for name, of in features.items() if isinstance(of, dict)}
            kinds = {name: typed.get(name, "") for name in schema.names}
            image, label = _columns(kinds)
            image = image or self._bytes_column(opened)
            classes = tuple(map(str, features.get(label, {}).get("names") or ())) if label else ()
            labels = opened.read([label]).column(0).to_pylist() if label else [None] * opened.metadata.num_rows
            groups = map(opened.metadata.row_group, range(opened.num_row_groups))
            starts = [0, *accumulate(group.num_rows for group in groups)]
        except UserError:
            raise
        except Exception as error:  # pyarrow raises anything at all on damaged files
            with file.open("rb") as stream:
                mend = "type git lfs pull in its folder" if stream.read(99).startswith(_POINTER) else "fetch it again"
            raise UserError("", file, f"is no readable parquet file ({_short(error)})", mend) from None

        @lru_cache(1)  # rows are asked for in order
        def images(group: int) -> Any:
            return opened.read_row_group(group, [image]).column(0)

        def read(index: int) -> object:
            group = bisect_right(starts, index) - 1
            return _bytes(images(group)[index - starts[group]].as_py(), file.parent)

        notes = [(FURTHER_COLUMN, f"{file.name}: {name}") for name in schema.names if name not in (image, label)]
        split = self._splits.get(file) or split_of(file.name, file.parent.name)
        return Rows(split, file.name, labels, read, classes, notes)

    def _bytes_column(self, opened: Any) -> str:
        if not opened.metadata.num_rows:
            return ""
        for row in next(opened.iter_batches(64)).to_pylist():  # the first may be null
            for name, value in row.items():
                data = value.get("bytes") if isinstance(value, dict) else value
                if isinstance(data, bytes) and signature(data[:16]):
                    return str(name)
        raise UserError("", self.name, f"has no column of images among {', '.join(opened.schema_arrow.names)}")


class HubDataset(Records):
    """A data set of the Hugging Face Hub, hf:OWNER/NAME[:CONFIG], in a folder that datasets saved, or in memory."""

    kind = "datasets"

    def __init__(self, source: Any, options: Options) -> None:
        super().__init__(options)
        self._library = library("datasets", "hf", "this source")
        if isinstance(source, str | Path):
            self._folders = (source,) if isinstance(source, Path) else self._kept(source)
            loaded = self._load(source)
        else:
            self.name, loaded = f"the {type(source).__name__}", source
            self._folders = Path.cwd(), Path(Path.cwd().anchor)  # any file, as the program that made it may read any
        self._splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
        if not all(hasattr(part, "__len__") for part in self._splits.values()):
            raise UserError("", self.name, "is read as a stream", "load it with streaming=False")
        first = next(iter(self._splits.values()))
        info, features = first.info, first.features
        card = _card(source.removeprefix(PREFIX).partition(":")[0]) if isinstance(source, str) else {}
        self.license = options.license or _short_text(info.license) or _short_text(card.get("license")) or UNKNOWN
        kinds = {name: type(of).__name__ for name, of in features.items()}
        self._image, self._label = _columns(kinds)
        if not self._image:
            raise UserError("", self.name, f"has no column of images among {', '.join(kinds)}")

    def _load(self, source: str | Path) -> Any:
        try:
            if isinstance(source, Path):
                return self._library.load_from_disk(str(source))
            name, _, config = source.removeprefix(PREFIX).partition(":")
            return self._library.load_dataset(name, config or None)
        except Exception as error:  # of the library, the network or the Hub
            raise UserError("", source, f"cannot be loaded: {_short(error)}", "check name and connection") from None

    def _kept(self, source: str) -> tuple[Path, ...]:
        """Where the library keeps the files of a data set of the Hub, and the folder of one on this machine."""
        from huggingface_hub.constants import HF_HUB_CACHE

        settings = self._library.config
        caches = settings.HF_DATASETS_CACHE, settings.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE
        local = Path(source.removeprefix(PREFIX).partition(":")[0])
        return (*map(Path, caches), *([local] if local.is_dir() else ()))

    def stamp(self) -> str:
        """The fingerprints of its splits."""
        return " ".join(f"{name} {of._fingerprint}" for name, of in self._splits.items())

    def rows(self) -> list[Rows]:
        """The rows of all splits."""
        return [self._of(name, of) for name, of in self._splits.items()]

    def _of(self, split: str, dataset: Any) -> Rows:
        feature = dataset.features.get(self._label)
        dataset = dataset.with_format(None)
        labels: Sequence[Hashable] = [None] * len(dataset) if feature is None else list(dataset[self._label])
        files = dataset.cast_column(self._image, self._library.Image(decode=False))
        classes = tuple(getattr(feature, "names", None) or ())
        further = [name for name in dataset.features if name not in (self._image, self._label)]
        notes = [(FURTHER_COLUMN, f"{split}: {name}") for name in further]

        def read(index: int) -> object:
            return _bytes(files[index][self._image], *self._folders)

        return Rows(split, split, labels, read, classes, notes)


def _columns(kinds: Mapping[str, str]) -> tuple[str, str]:
    """The columns of images and of labels, by the table's name of each one's kind; "" where there is none."""
    images, classes = ([name for name, kind in kinds.items() if kind == of] for of in ("Image", "ClassLabel"))
    return next(iter(images), ""), next((name for name in (*classes, *KEYS) if name in kinds), "")


def _bytes(value: Any, *folders: Path) -> bytes:
    """The bytes of an image file in a table, or in the file that it names below one of the ``folders``."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None and isinstance(value, dict) and value.get("path"):
        file = (folders[0] / str(value["path"])).resolve()
        allowed = any(file.is_relative_to(folder.resolve()) for folder in folders)
        data = file.read_bytes() if allowed and file.is_file() else b""
    return bytes(data or b"")


def _card(source: str | Path) -> Any:
    """The metadata of the card of a data set on the Hub, or in a file; an empty mapping where there are none."""
    try:
        hub = library("huggingface_hub", "hf", "the card")
        return hub.metadata_load(source) or {} if isinstance(source, Path) else hub.DatasetCard.load(source).data
    except Exception:  # offline, or none
        return {}


def _features(card: Any) -> dict[str, Any]:
    """The type, and names of classes, of each column that a card describes, as tables have them."""
    info, features = card.get("dataset_info"), dict[str, Any]()
    with suppress(AttributeError, IndexError, KeyError, TypeError):  # of a card written by hand
        for column in (info if isinstance(info, dict) else info[0])["features"]:
            kind = column["dtype"]
            if "class_label" in kind:
                names = kind["class_label"]["names"]  # by number, or a list
                names = list(names.values()) if isinstance(names, dict) else names
                features[column["name"]] = {"_type": "ClassLabel", "names": names}
            elif kind == "image":
                features[column["name"]] = {"_type": "Image"}
    return features


def _splits(card: Any, folder: Path) -> dict[Path, str]:
    """The split of each parquet file below ``folder`` that the card's only or default configuration names."""
    splits, inside = dict[Path, str](), folder.resolve()
    try:
        configs = card["configs"]
        (config,) = [one for one in configs if one.get("default") or one["config_name"] == "default"] or configs
        for part in config["data_files"]:
            for pattern in part["path"] if isinstance(part["path"], list) else [part["path"]]:
                files = [file for file in folder.glob(pattern) if file.resolve().is_relative_to(inside)]
                splits |= {file: str(part["split"]).casefold() for file in files if file.suffix == ".parquet"}
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError):  # written by hand
        return {}
    return splits


def _short_text(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    return " ".join(text.split())[:200]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
