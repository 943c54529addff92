"""The page of ``nearfar report`` in headless Chromium: on a phone, in the dark, by keyboard, with no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awkward import LONG
from browser import Browser, find_browser

CHROMIUM = find_browser()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium (CHROME_BIN names it)")

WINDOWS = [(360, False), (360, True), (1280, False), (1280, True)]
NAMES = ["phone", "phone in the dark", "desk", "desk in the dark"]

#: For every element with words of its own: the words, how large they are, and their contrast with what is behind them.
CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const words = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join(' ');
    if (!words.trim() || element.tagName === 'TITLE' || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = rgba(element instanceof SVGElement ? style.fill : style.color);
    const [one, other] = [luminance(ink), luminance(behind(element))];
    found.push([words.slice(0, 40), (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)]);
  }
  return found;
})()
"""

#: What stands out of the window at either side, or of the panel it is in.
OVERFLOWS = """
(() => {
  const out = [];
  const wide = document.documentElement.clientWidth;
  for (const element of document.body.querySelectorAll('*')) {
    if (element.closest('.wide, .skip, svg')) continue;
    const box = element.getBoundingClientRect();
    if (box.width && (box.left < -0.5 || box.right > wide + 0.5)) out.push(element.outerHTML.slice(0, 80));
    const panel = element.closest('.grid > *'), end = panel ? panel.getBoundingClientRect().right : Infinity;
    if (box.width && box.right > end + 0.5) out.push(element.outerHTML.slice(0, 80));
  }
  return out;
})()
"""

#: Figures with words and pictures that lie on each other: what is in one tile belongs in it alone.
OVERLAPS = """
(() => {
  const out = [];
  for (const list of document.querySelectorAll('.row, .pairs, .queries')) {
    const boxes = [...list.children].map(child => child.getBoundingClientRect());
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
      const across = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
      const down = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
      if (across > 0.5 && down > 0.5) out.push(list.className);
    }
  }
  return out;
})()
"""

FOCUS = """
(() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  return {tag: one.tagName, href: one.getAttribute('href'), label: one.getAttribute('aria-label'),
    outline: style.outlineStyle, width: parseFloat(style.outlineWidth), seen: box.bottom > 0 && box.top < innerHeight};
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as started:
        yield started


@pytest.fixture(scope="module")
def file(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=WINDOWS, ids=NAMES)
def shown(browser: Browser, file: Path, request: pytest.FixtureRequest) -> Browser:
    width, dark = request.param
    browser.open(file, width=width, dark=dark)
    return browser


def test_it_asks_for_nothing_and_nothing_is_wrong_with_it(shown: Browser, file: Path) -> None:
    assert [address for address in shown.asked if not address.startswith("data:")] == [file.resolve().as_uri()]
    assert shown.complaints == []
    pictures = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
    assert shown.evaluate(pictures)
    assert all(shown.evaluate(pictures))


def test_no_page_is_wider_than_its_window(shown: Browser) -> None:
    assert shown.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert shown.evaluate(OVERFLOWS) == []
    assert LONG in shown.evaluate("document.body.textContent")


def test_nothing_lies_on_something_else(shown: Browser) -> None:
    assert shown.evaluate(OVERLAPS) == []


def test_all_words_stand_out_from_what_is_behind_them(shown: Browser) -> None:
    found = shown.evaluate(CONTRASTS)
    assert len(found) > 100
    assert [(words, round(ratio, 2)) for words, ratio in found if ratio < 4.5] == []


def test_the_dark_is_dark(browser: Browser, file: Path) -> None:
    grounds = []
    for dark in (False, True):
        browser.open(file, width=360, dark=dark)
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


def test_words_are_large_enough_to_read_on_a_phone(browser: Browser, file: Path) -> None:
    browser.open(file, width=360)
    sizes = """[...document.querySelectorAll('svg.chart text')].map(text =>
        parseFloat(getComputedStyle(text).fontSize) * text.getCTM().a)"""
    assert min(browser.evaluate(sizes)) >= 8.5
    rest = (
        "[...document.querySelectorAll('p, td, th, li, figcaption')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(browser.evaluate(rest)) >= 12


def test_links_are_large_enough_for_a_finger(browser: Browser, file: Path) -> None:
    browser.open(file, width=360)
    heights = browser.evaluate(
        "[...document.querySelectorAll('nav a, summary')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24  # WCAG 2.2, target size


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(browser: Browser, file: Path) -> None:
    browser.open(file, width=1280)
    count = browser.evaluate("document.querySelectorAll('a[href], summary, [tabindex]').length")
    stops: list[dict[str, Any]] = []
    for _ in range(count):
        browser.press("Tab", code=9)
        stops.append(browser.evaluate(FOCUS))
    assert stops[0]["href"] == "#content"
    sections = browser.evaluate("[...document.querySelectorAll('section')].map(section => '#' + section.id)")
    assert [stop["href"] for stop in stops[1 : 1 + len(sections)]] == sections
    assert all(stop["outline"] == "solid" and stop["width"] >= 2 and stop["seen"] for stop in stops), stops
    assert {stop["tag"] for stop in stops} == {"A", "SUMMARY", "DIV"}
    assert all(stop["label"] for stop in stops if stop["tag"] == "DIV")


def test_the_first_stop_skips_to_the_content_and_details_open(browser: Browser, file: Path) -> None:
    browser.open(file, width=360)
    browser.press("Tab", code=9)
    browser.press("Enter", code=13, text="\r")
    assert browser.evaluate("location.hash") == "#content"
    browser.press("Tab", code=9)
    assert browser.evaluate(FOCUS)["label"]  # the first table, not a link of the navigation
    browser.evaluate("document.querySelector('#configuration summary').focus()")
    browser.press("Enter", code=13, text="\r")
    assert browser.evaluate("document.querySelector('#configuration details').open") is True
