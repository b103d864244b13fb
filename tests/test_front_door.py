"""What `import unstir` offers: the names of `__all__`, each loaded when it is asked for, torch with none of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unstir


def test_importing_the_package_is_fast_and_loads_no_torch():
    program = """
import sys, time
began = time.process_time()
import unstir
took = time.process_time() - began
print(took, sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "numpy", "pydantic")))
"""
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(5)
    ]
    assert {loaded.strip() for _, loaded in runs} == {"[]"}
    assert min(float(took) for took, _ in runs) < 0.05


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
