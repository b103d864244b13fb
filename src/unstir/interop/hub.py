"""The Hugging Face Hub: models by their id, OWNER/NAME or OWNER/NAME@REVISION, fetched and published.

huggingface_hub keeps what it fetches in its own cache (~/.cache/huggingface, or HF_HOME). What lies there is read
without a network. It also knows who is logged in; the token is never read here, and no message shows it.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from unstir.errors import UserError
from unstir.libraries import library

ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+).*")
COMMIT = re.compile(r"[0-9a-f]{12}")
FIRST = {".gitattributes"}  # what the Hub itself puts into a new repository
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
FROM_CACHE = "without an answer from the Hub: the files that an earlier fetch left here, perhaps not all of them"
NOT_FOUND = ("RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "HFValidationError")


def is_id(source: str) -> bool:
    """Whether a source that is no file or folder can be the id of a model on the Hub."""
    return ID.fullmatch(source) is not None


def is_address(source: str) -> bool:
    """Whether a source is the address of a page on the Hub, which has a model's id in it."""
    return ADDRESS.fullmatch(source) is not None


def check_name(name: str) -> None:
    """Raise UserError where this is no OWNER/NAME, under which a model could be published."""
    if not (match := ID.fullmatch(name)) or match[2]:
        raise no_name(name)


def no_name(name: str) -> UserError:
    """What to say of a name that no model has; of an address the name in it."""
    meant = ADDRESS.fullmatch(name)
    return UserError(
        f"{name} is no name of a model on the Hugging Face Hub; give {meant[1] if meant else 'OWNER/NAME'}"
    )


def is_fetched(identity: str) -> bool:
    """Whether this is the id@commit of a model that `fetch` fetched, and no local file or folder."""
    match = ID.fullmatch(identity)
    return match is not None and COMMIT.fullmatch(match[2] or "") is not None


class Fetched(NamedTuple):
    """The ``folder`` of a model's files, its ``identity`` (id@commit), and what is to be said of them, if anything."""

    folder: Path
    identity: str
    notes: tuple[str, ...]


def fetch(source: str, patterns: Sequence[str], *, or_folder: bool) -> Fetched:
    """Fetch those files of a model that fit the ``patterns``, or take what an earlier fetch of them left here.

    Raises UserError where there is no such model, or neither network nor cache have it; with ``or_folder`` it says that
    ``source``, which is no file or folder here, might have been one.
    """
    match = ID.fullmatch(source)
    assert match is not None
    name, revision = match[1], match[2]
    hub = library("huggingface_hub", "hub", f"{source}, a model of the Hugging Face Hub,")
    wanted = {"repo_id": name, "revision": revision, "allow_patterns": list(patterns)}
    with _refused(lambda error: _not_fetched(source, error, or_folder)):
        try:
            there = hub.HfApi().model_info(name, revision=revision)
            folder = Path(hub.snapshot_download(**wanted))  # which without a network gives what lies there, silently
            whole = folder.name == there.sha and all(map(Path.exists, _places(folder, there, patterns)))
        except _errors() as error:
            if type(error).__name__ in NOT_FOUND:
                raise
            folder, whole = _cached(hub, wanted, error), False
    return Fetched(folder, f"{name}@{folder.name[:12]}", () if whole else (FROM_CACHE,))


def _places(folder: Path, there: Any, patterns: Sequence[str]) -> list[Path]:
    """Where the files of a model that fit the ``patterns`` lie when it has been fetched to a folder."""
    names = [each.rfilename for each in there.siblings or ()]
    return [folder / name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]


class Account:
    """Whoever is logged in at the Hub. Raises UserError where nobody is, or no network is there."""

    def __init__(self) -> None:
        hub = library("huggingface_hub", "hub", "the Hugging Face Hub")
        self._api: Any = hub.HfApi()
        if hub.get_token() is None:
            raise UserError(f"nobody is logged in at the Hugging Face Hub; {LOGIN}")
        with _refused(self._not_known):
            found = self._api.whoami()
        self.name = str(found["name"])
        self.owners = {self.name, *(str(each.get("name")) for each in found.get("orgs") or ())}

    def check(self, name: str, ours: str, private: bool) -> None:
        """Raise UserError where a model of this name cannot be published: another's, or it holds something else.

        What was published before has a file called ``ours``. A public one is refused where ``private`` is asked for.
        """
        owner = name.split("/")[0]
        if owner not in self.owners:
            raise UserError(f"{owner} is neither {self.name}, who is logged in, nor one of its organisations; name one")
        with _refused(lambda error: self._not_published(name, error)):
            there = self._there(name)
        if there is None:
            return
        files = {each.rfilename for each in there.siblings or ()} - FIRST
        if files and ours not in files:
            raise UserError(f"{name} is there and holds something else than a model of unstir; name another")
        if private and not there.private:
            how = "make it private in its settings on the Hub, or name another"
            raise UserError(f"{name} is there and public, which --private does not change; {how}")

    def publish(self, folder: Path, name: str, message: str, private: bool, replaced: Sequence[str]) -> str:
        """Upload a folder as a model in one commit, and return its address; files there that fit ``replaced`` go.

        Raises UserError where the Hub refuses it or cannot be reached.
        """
        with _refused(lambda error: self._not_published(name, error)):
            self._api.create_repo(name, private=private or None, exist_ok=True)
            self._api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=message, delete_patterns=list(replaced)
            )
        return f"{self._api.endpoint}/{name}"

    def _there(self, name: str) -> Any:
        """What the Hub says of a model; None where there is none, which a private one of another looks like."""
        try:
            return self._api.model_info(name)
        except _part("errors").RepositoryNotFoundError:
            return None

    @staticmethod
    def _not_known(error: Exception) -> str:
        if _status(error) in (401, 403):
            return f"the Hugging Face Hub does not accept the token that is logged in; {LOGIN}"
        return f"the Hugging Face Hub could not be reached ({_unreached(error)}); try again with a network"

    def _not_published(self, name: str, error: Exception) -> str:
        if _status(error) in (401, 403):
            return f"{self.name} has no right to write {name}; use a token of the kind write: {LOGIN}"
        if type(error).__name__ == "HFValidationError":
            return (
                f"{name} is no name that the Hub takes: at most 96 characters, no -- or .., no .git, . or - at its end"
            )
        if _status(error) == 400:
            known = "the Hub knows names such as apache-2.0 and cc-by-4.0"
            return f"the Hugging Face Hub refuses {name} (HTTP 400); check --licence: {known}"
        return f"{name} could not be published ({type(error).__name__}); try again, which goes on with what is missing"


@contextmanager
def _refused(words: Callable[[Exception], str]) -> Iterator[None]:
    """Errors of the library, and of the one under it that speaks HTTP, in a line of ours that holds none of theirs.

    Theirs may name addresses with keys in them.
    """
    log, bars = logging.getLogger("huggingface_hub"), _part("utils")
    level, silent = log.level, not sys.stderr.isatty() and not bars.are_progress_bars_disabled()
    log.setLevel(logging.ERROR)  # what it warns of, such as another try, ends well or is said in our line
    if silent:
        bars.disable_progress_bars()
    try:
        yield
    except _errors() as error:
        raise UserError(words(error)) from None
    finally:
        log.setLevel(level)
        if silent:
            bars.enable_progress_bars()


def _part(name: str) -> Any:
    """A module of the library, which loads them when they are asked for."""
    return library(f"huggingface_hub.{name}", "hub", "the Hugging Face Hub")


def _errors() -> tuple[type[Exception], ...]:
    """What the library raises, by requests or by httpx, for want of a network, a right, or a model."""
    return (OSError, ValueError, RuntimeError, getattr(_part("errors"), "HTTPError", OSError))


def _cached(hub: Any, wanted: dict[str, Any], error: Exception) -> Path:
    """The folder in the cache of what could not be fetched; the ``error`` again where it is not there."""
    try:
        return Path(hub.snapshot_download(**wanted, local_files_only=True))
    except _errors():
        raise error from None


def _status(error: BaseException) -> int:
    """The HTTP status of an error, or of the one that it was made of; 0 for none."""
    found = int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
    return found or (_status(error.__cause__) if error.__cause__ else 0)


def _not_fetched(source: str, error: Exception, or_folder: bool) -> str:
    kind, name = type(error).__name__, source.split("@")[0]
    if kind in NOT_FOUND:
        nothing = "is neither a file, a folder nor a model" if or_folder else "is no model"
        what = {"RevisionNotFoundError": "has no such revision", "GatedRepoError": "asks for a login (hf auth login)"}
        return f"{source} {what.get(kind, f'{nothing} of the Hugging Face Hub')}"
    here = "is no file or folder here, and " if or_folder else ""
    failed = f"{source} {here}could not be fetched from the Hugging Face Hub ({_unreached(error)})"
    return f"{failed}; with a network: hf download {name}" + (", or name a folder that has its files" * or_folder)


def _unreached(error: Exception) -> str:
    """Why the Hub did not give what it was asked for, without a word of the library's own."""
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE forbids it"
    return f"HTTP {status}" if (status := _status(error)) else f"no answer: {type(error).__name__}"
