"""The site is built from docs/ without a warning or a network; its links lead somewhere, and it fetches nothing."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("sphinx", reason="builds the site: pip install '.[docs]'")
pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[1] / "docs"
OFFLINE = """
import socket, sys
from sphinx.cmd.build import main

def refused(*_):
    raise OSError("there is no network")

socket.socket.connect = socket.getaddrinfo = refused
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", OFFLINE, "-q", "-W", "--keep-going", "-d", out / "trees", DOCS, out / "html"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


def targets(page):
    """The tag and the address of whatever a page leads to or shows."""
    text = page.read_text(encoding="utf-8")
    return [(tag, unescape(address)) for tag, address in re.findall(r"<(\w+)[^>]*?\s(?:src|href)=\"([^\"]*)\"", text)]


def test_every_link_leads_to_a_part_of_the_site_or_away(site):
    pages = [*site.glob("*.html"), *site.glob("made/*.html")]
    made = ("index", "theory", "notebook", "reference", "live")
    assert {page.name for page in pages} >= {f"{name}.html" for name in made}
    for page in pages:
        for tag, address in targets(page):
            if re.match("https?:", address):
                assert tag == "a", f"{page}: {address} is fetched from elsewhere"
            elif not address.startswith(("data:", "#")):
                path, _, part = address.partition("#")
                file = page.parent / unquote(path.partition("?")[0])
                assert file.is_file(), f"{page}: {address}"
                assert not part or f'id="{part}"' in file.read_text(encoding="utf-8"), f"{page}: {address}"


def test_equations_names_and_pictures_are_in_the_pages(site):
    theory = (site / "theory.html").read_text(encoding="utf-8")
    assert theory.count("<math ") > 500 and "$`" not in theory and "\\bar" not in theory
    assert 'id="unstir.train_run"' in (site / "made/train.html").read_text(encoding="utf-8")
    notebook = (site / "made/notebook.html").read_text(encoding="utf-8")
    assert notebook.count("<math ") > 50 and notebook.count("<img ") >= 13
