"""What `import unstir` offers: the names of `__all__`, each loaded when it is asked for, torch with none of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unstir


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
