"""The shape of the code: imports go one way, nothing unsafe is called, promised names load alone, files stay short."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import typing
from functools import cached_property
from pathlib import Path

import pytest
import torch

import unstir

ROOT = Path(__file__).parents[1]
SOURCE = Path(unstir.__file__).parent
ROOMS = [
    "errors", "parts", "group", "progress", "significance", "randomness", "pixels",
    "theory", "chain", "nn", "diffusion", "verify", "data", "pictures", "runs", "train", "generate", "compare", "edit",
    "metrics", "insight", "serve", "interop", "trackers", "jobs", "console", "cli", "__main__",
]  # fmt: skip
"""From the ground up; a module imports only from its own room and those before it. docs/design.md draws the same."""

FILES = sorted(SOURCE.rglob("*.py"))
UNPICKLER = "data/unpickle.py"
TORCH_READER = "interop/torch_file.py"
TAR_READER = "data/tars.py"


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules = [node.module] if node.module != "unstir" else [f"unstir.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        yield from (module.split(".")[1] for module in modules if module.startswith("unstir."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    if path == SOURCE / "__init__.py":
        return
    below = ROOMS[: ROOMS.index(room_of(path)) + 1]
    above = set(imported_rooms(ast.parse(path.read_text()))) - set(below)
    assert not above, path


def test_every_room_is_listed_in_the_design():
    design = (ROOT / "docs/design.md").read_text()
    for room in ROOMS:
        assert (SOURCE / room).is_dir() or (SOURCE / f"{room}.py").is_file()
        assert room == "__main__" or f"{room}/" in design or f"{room}.py" in design


def test_the_files_to_read_need_only_those_before_them():
    text = (ROOT / "docs/reading.md").read_text()
    files = re.findall(r"\(\.\./src/unstir/([a-z_/]+)\.py\)", text)
    assert len(files) > 20 and len(set(files)) == len(files)
    for number, name in enumerate(files):
        tree = ast.parse((SOURCE / f"{name}.py").read_text())
        modules = {node.module.removeprefix("unstir.") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        later = modules & {after.replace("/", ".") for after in files[number + 1 :]}
        assert not later, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_that_can_run_a_file_is_called(path):
    calls = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            calls += [name for name in names if name.split(".")[0] in {"pickle", "marshal", "shelve", "dill", "yaml"}]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            methods = ("torch.load", "os.system", "os.popen", ".extractall", ".extract")
            if called in {"eval", "exec", "compile"} or called.endswith(methods):
                calls.append(called)
            if called.endswith(".extractall"):
                assert {word.arg: ast.unparse(word.value) for word in node.keywords} == {"filter": "'data'"}
            if called == "torch.load":
                assert {word.arg: ast.unparse(word.value) for word in node.keywords}["weights_only"] == "True"
            calls += ["shell=True" for word in node.keywords if word.arg == "shell"]
            calls += [
                "allow_pickle"
                for word in node.keywords
                if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
            ]
    safe = {UNPICKLER: "pickle", TORCH_READER: "torch.load", TAR_READER: "tar.extractall"}
    allowed = safe.get(str(path.relative_to(SOURCE)))
    assert [call for call in calls if call != allowed] == []


ONLY_IN = {
    "torch.distributed": "jobs", "torch.nn.parallel": "jobs", "signal": "jobs", "os._exit": "jobs",
    "os.environ.setdefault": "cli", "filelock": "data", "fcntl": "nowhere",
}  # fmt: skip
"""What belongs to the process in which the library is a guest, and the one room that may touch it."""


def touched(tree):
    """The modules that a file imports, and what it uses of os and torch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and (name := ast.unparse(node)).startswith(("os.", "torch.")):
            yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_edge_touches_the_process(path):
    names = list(touched(ast.parse(path.read_text())))
    for what, room in ONLY_IN.items():
        assert room == room_of(path) or not [name for name in names if f"{name}.".startswith(f"{what}.")], what


def test_files_and_functions_stay_short_enough_to_read():
    for path in FILES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 400, f"{path} has {len(lines)} lines"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef) and path.parent.name != "cli":  # a command's docstring is its help
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 45, f"{path}: {node.name} has {length} lines"


def test_each_file_of_tests_has_a_name_of_its_own():  # or pytest collects none of them
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert len(names) == len(set(names))


def test_ci_installs_the_lowest_versions_that_are_allowed():
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lowest = (ROOT / ".ci/lowest.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(lowest) == sorted(need.replace(">=", "==") for need in needs if not need.startswith("torch>="))


def test_every_address_of_the_project_is_that_of_pyproject():
    """So that the publishing workflow, which compares this one alone, refuses a placeholder in any."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]
    owner = address.split("/")[-2]
    patterns = "*.md", "CITATION.cff", "pyproject.toml", "docs/*.*", "examples/*.ipynb"
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    texts = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert set(re.findall(r"github(?:usercontent)?(?:\.com)?/([\w-]+)/unstir|([\w-]+)\.github\.io/unstir", texts)) <= {
        (owner, ""),
        ("", owner),
    }
    assert f"git clone {address} " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"repository-code: {address}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for file, line in (("CITATION.cff", "version: {}\n"), ("CHANGELOG.md", "\n## {},")):
        assert line.format(project["version"]) in (ROOT / file).read_text(encoding="utf-8")


def test_no_page_keeps_the_marks_of_a_conflict_or_links_to_a_file_that_is_not_there():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"^(<{7}|={7}|>{7})( |$)", text, re.MULTILINE), page
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            assert re.match(r"https?:|mailto:", target) or (page.parent / target).exists(), f"{page}: {target}"


def test_importing_the_package_loads_no_torch():
    program = "import sys, unstir; print({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'pydantic'})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", unstir.__all__)
def test_each_name_is_that_of_the_module_where_it_is_defined(name):
    found = getattr(unstir, name)
    assert found.__name__ == name and found.__module__.startswith("unstir.") and found.__doc__
    assert getattr(sys.modules[found.__module__], name) is found


def test_a_type_checker_sees_the_same_names():
    tree = ast.parse(Path(unstir.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    imported = [
        (node.module, alias.name) for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(name for _, name in imported) == sorted(unstir.__all__) == unstir.__all__
    assert all(getattr(unstir, name) is getattr(sys.modules[module], name) for module, name in imported)


def test_no_name_is_that_of_a_module():
    folder = Path(unstir.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(unstir.__all__)


def test_other_names_are_refused_as_python_does():
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = unstir.nothing
    assert unstir.__version__ and set(unstir.__all__) <= set(dir(unstir))


def signatures(thing):
    """A function or class, and of a class what it offers: methods, and properties by their functions."""
    yield thing
    for name, member in vars(thing).items() if inspect.isclass(thing) else ():
        function = getattr(member, "__func__", member)
        function = function.fget if isinstance(function, property) else function
        function = function.func if isinstance(function, cached_property) else function
        if not name.startswith("_") and inspect.isfunction(function):
            yield function


def types_in(hint):
    if inspect.isclass(hint) and not typing.get_args(hint):
        yield hint
    for inner in typing.get_args(hint):
        for part in inner if isinstance(inner, list) else [inner]:
            yield from types_in(part)


@pytest.mark.parametrize("name", unstir.__all__)
def test_every_type_of_a_public_signature_is_public(name):
    seen = {**{name: getattr(unstir, name) for name in unstir.__all__}, "torch": torch, "Tensor": torch.Tensor}
    seen |= {"nn": torch.nn, "Iterator": typing.Iterator, "MatplotlibFigure": typing.Any}  # for type checkers alone
    for signature in signatures(seen[name]):
        for argument, hint in typing.get_type_hints(signature, localns=seen).items():
            for kind in types_in(hint):
                ours = kind.__module__.startswith("unstir.") and not argument.startswith("_")
                assert not ours or getattr(unstir, kind.__name__, None) is kind, f"{signature}: {argument}"


def test_every_public_name_is_in_the_docs():
    text = (Path(__file__).parents[1] / "docs/python.md").read_text()
    said = set(re.findall(r"\w+", " ".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))))
    assert not set(unstir.__all__) - said
