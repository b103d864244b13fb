"""Pages of one run and of two for a strict parser, in a real browser and on paper: valid, whole, quiet, readable."""

import re

import pytest
import reported
from jinja2 import Environment, PackageLoader
from PIL import Image
from reported import parsed

import browsers
from browsers import NO_BROWSER
from unstir.insight import pictures

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]
run, other, store = reported.run, reported.other, reported.store
report, comparison = reported.report, reported.comparison
browser = browsers.browser


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_the_page_is_valid_and_needs_nothing_else(which, request):
    path = request.getfixturevalue(which)
    tree = parsed(path)
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in tree.iter():
        for name in ("src", "href", "data", "poster", "srcset"):
            target = element.get(name, "")
            assert not target or target.startswith(("data:", "#")), f"{element.tag} {name}={target[:60]}"
            assert not target.startswith("#") or target[1:] in ids, f"{target} leads nowhere"
        for name in ("aria-labelledby", "for"):
            assert all(part in ids for part in element.get(name, "").split())
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "http-equiv" in text
    assert all(image.get("alt") for image in tree.iter("img"))


@NO_BROWSER
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_real_browser_finds_nothing_to_complain_of(browser, which, width, scheme, request):
    from axe_playwright_python.sync_playwright import Axe

    path = request.getfixturevalue(which)
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    tab, complaints, requests = context.new_page(), [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    fits = tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert fits and shown
    found = Axe().run(tab).response["violations"]
    assert [(rule["id"], [node["html"][:80] for node in rule["nodes"]]) for rule in found] == []
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []


@NO_BROWSER
@pytest.mark.parametrize("width", [360, 390, 1200])
@pytest.mark.parametrize("which", ["report", "comparison"])
def test_charts_and_tables_fit_the_screen_and_their_labels_are_whole(browser, which, width, request):
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.goto(request.getfixturevalue(which).as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    boxes = tab.evaluate(
        """[...document.querySelectorAll('svg.chart')].flatMap(svg => {
            const outer = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].map(text => {
                const box = text.getBoundingClientRect();
                return [text.textContent, box.left - outer.left, outer.right - box.right,
                        box.top - outer.top, outer.bottom - box.bottom, box.height,
                        outer.left, innerWidth - outer.right];
            });
        })"""
    )
    assert len(boxes) > 20
    for text, *room in boxes:
        assert min(room[:4]) > -1.5, f"{text!r} is cut: {room}"
        assert room[4] > 7.5, f"{text!r} is {room[4]} pixels high"
        assert min(room[5:]) >= 0
    wide = tab.evaluate(
        "[...document.querySelectorAll('.scroll, figure')]"
        ".filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.getAttribute('aria-label') || e.textContent)"
    )
    assert wide == []
    used = tab.evaluate("document.querySelector('main').getBoundingClientRect().width")
    lines = "e => { const r = document.createRange(); r.selectNodeContents(e); return r.getClientRects().length; }"
    numbers = tab.evaluate(f"[...document.querySelectorAll('td.n')].map({lines})")
    assert used > 0.85 * width and (width == 360 or which == "comparison" or set(numbers) == {1})
    tab.close()


@NO_BROWSER
def test_pictures_of_unlike_sizes_in_a_row_have_one_height_and_their_captions_one_line(browser, tmp_path):
    snapshots = [(f"{height} pixels", pictures.encode(Image.new("L", (150, height)), "a")) for height in (150, 170, 60)]
    templates = Environment(loader=PackageLoader("unstir.insight"), autoescape=True)
    templates.filters |= dict.fromkeys(("code", "sentence"), str)
    drawn = templates.get_template("macros.html").make_module().strip(snapshots)
    css = templates.loader.get_source(templates, "report.css")[0]
    (tmp_path / "row.html").write_text(f"<style>{css}</style>{drawn}")
    tab = browser.new_page(viewport={"width": 900, "height": 800})
    tab.goto((tmp_path / "row.html").as_uri())
    box = "(each => (box => [box.top, box.bottom])(each.getBoundingClientRect()))"
    for which in ("img", "figcaption"):
        found = tab.evaluate(f"[...document.querySelectorAll('.moments {which}')].map{box}")
        assert len(found) == 3 and len({tuple(map(round, ends)) for ends in found}) == 1, found
        assert which == "figcaption" or found[0][1] - found[0][0] > 100
    tab.close()


@NO_BROWSER
@pytest.mark.parametrize(("pixels", "how"), [(1, "auto"), (2, "pixelated")])
def test_a_picture_that_is_made_smaller_keeps_the_strokes_of_its_words(browser, report, pixels, how):
    """With one pixel of the screen for one of the page, pictures are reduced or as they are, and never enlarged."""
    tab = browser.new_page(viewport={"width": 900, "height": 800}, device_scale_factor=pixels)
    tab.goto(report.as_uri())
    found = tab.evaluate("[...document.querySelectorAll('img')].map(e => getComputedStyle(e).imageRendering)")
    assert found and set(found) == {how}
    tab.close()


@NO_BROWSER
def test_legends_hide_no_curve(browser, report):
    tab = browser.new_page(viewport={"width": 375, "height": 800})
    tab.goto(report.as_uri())
    hidden = tab.evaluate(
        """[...document.querySelectorAll('svg.chart')].filter(svg => {
            const legend = svg.querySelector('[id*="legend"]'), axes = svg.querySelector('[id*="-patch_2"]');
            return legend && legend.getBoundingClientRect().top < axes.getBoundingClientRect().bottom - 1;
        }).length"""
    )
    legends = tab.evaluate("document.querySelectorAll('svg.chart [id*=\"legend\"]').length")
    assert legends >= 4 and hidden == 0
    tab.close()


@NO_BROWSER
def test_without_scripts_all_is_there_and_print_hides_the_list_of_sections(browser, report):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(report.as_uri())
    assert tab.locator(".moments img").last.is_visible() and tab.locator("nav").is_visible()
    tab.emulate_media(media="print")
    assert tab.locator(".moments img").last.is_visible() and not tab.locator("nav").is_visible()
    context.close()
