"""What a browser finds wrong with pages: errors, weight, what is cut off, and what keeps people out."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.staticfiles import finders

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE, NARROW = {"width": 1360, "height": 860}, {"width": 390, "height": 844}
HEAVIEST = 150 * 1024
# In place of a text to fill in: a box to tick.
TICK = "\N{CHECK MARK}"
# What of axe-core's findings may not be: the words are its own, worst last.
GRAVE = {"serious", "critical"}
# Those of axe-core's rules that look at colours (https://dequeuniversity.com/rules/axe/4.12).
# The first takes longer than all others together.
CONTRAST, LINKS = "color-contrast", "link-in-text-block"

SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
CUT_OFF = "[...document.querySelectorAll('.table-wrap')].some(wrap => wrap.scrollWidth > wrap.clientWidth)"
# Asked once and waiting in the page: a condition that playwright asks for again and again is a string each time,
# which the content security policy forbids.
SETTLED = """async () => {
  await document.fonts.ready;
  while (document.querySelector(".htmx-request")) await new Promise(soon => setTimeout(soon, 10));
}"""
# What the contrast of an element depends on: its letters, and what is behind them. Nothing of one that is not to
# be seen.
REMEMBER = """
window.looksOf = elements => {
  const grounds = new Map();
  const groundOf = element => {
    if (element === null) return "";
    if (!grounds.has(element)) {
      const { backgroundColor: color, backgroundImage: image, opacity } = getComputedStyle(element);
      const own = color + image + opacity;
      const covers = color.startsWith("rgb(") && opacity === "1";
      grounds.set(element, covers ? own : own + groundOf(element.parentElement));
    }
    return grounds.get(element);
  };
  return elements.map(element => {
    if (!element.checkVisibility()) return "";
    const { color, fontSize, fontWeight } = getComputedStyle(element);
    return [color, fontSize, fontWeight, groundOf(element)].join();
  });
};
window.looked = [...document.body.querySelectorAll("*")];
window.looks = looksOf(looked);
"""
# Elements with words of their own, or of people, that look otherwise than they did.
CHANGED = """
(() => {
  const looks = looksOf(looked);
  const speaks = element =>
    element.matches('input, select, textarea')
    || [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  return looked.filter((element, at) => looks[at] && looks[at] !== window.looks[at] && speaks(element));
})()
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """A look at a page: whose at which address, dark or narrow, and the form to send first."""

    name: str
    url: str
    person: str = ""
    dark: bool = False
    narrow: bool = False
    fill: tuple[tuple[str, str], ...] = ()
    submit: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at a look: the bytes of its page as they travel, and what is wrong."""

    shot: Shot
    weight: int
    problems: list[str]


@dataclass
class _Window:
    page: Page
    errors: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


class Inspector:
    """Opens pages and says what is wrong with each.

    ``sessions`` are the people's, by e-mail address. A person keeps one window; whoever is not signed
    in gets a new one for every page. A page that is looked at several times in a row, wide, dark and
    narrow, is opened once. ``picture`` is called at each look, before axe-core touches the page.
    """

    def __init__(
        self,
        browser: Browser,
        base: str,
        sessions: Mapping[str, str],
        picture: Callable[[Page, Shot], object],
    ) -> None:
        self._browser, self._base, self._sessions, self._picture = browser, base, sessions, picture
        self._windows: dict[str, _Window] = {}

    def inspect(self, shots: Sequence[Shot]) -> Iterator[Found]:
        """Look at each of ``shots``, in their order."""
        for (person, *_), looks in groupby(
            shots, key=lambda shot: (shot.person, shot.url, shot.fill, shot.submit)
        ):
            window = self._windows.get(person) or self._open(person)
            weight = 0
            for number, shot in enumerate(looks):
                window.page.emulate_media(color_scheme="dark" if shot.dark else "light")
                window.page.set_viewport_size(NARROW if shot.narrow else WIDE)  # type: ignore[arg-type]  # a TypedDict of playwright's own
                if number == 0:
                    weight = self._visit(window, shot)
                yield Found(shot, weight, self._look(window, shot, weight, first=number == 0))
            if not person:
                window.page.context.close()

    def _open(self, person: str) -> _Window:
        # Colours that fade from one to another would be measured on their way.
        context = self._browser.new_context(
            base_url=self._base, device_scale_factor=1, reduced_motion="reduce"
        )
        window = _Window(context.new_page())
        window.page.on("pageerror", lambda error: window.errors.append(str(error)))
        window.page.on(
            "console",
            lambda line: (
                window.errors.append(line.text)
                if line.type == "error" and "status of 4" not in line.text
                else None
            ),
        )
        window.page.on("response", lambda answer: window.answers.append(answer))  # noqa: PLW0108 - playwright takes no built-in
        if person:
            name, value = settings.SESSION_COOKIE_NAME, self._sessions[person]
            context.add_cookies([{"name": name, "value": value, "url": self._base}])
            self._windows[person] = window
        return window

    def _visit(self, window: _Window, shot: Shot) -> int:
        """Open the page; returns its weight without that of what is sent."""
        page = window.page
        window.errors.clear()
        window.answers.clear()
        page.goto(shot.url)
        settle(page)
        weight = sum(weight_of(answer) for answer in window.answers)
        for selector, text in shot.fill:
            if text == TICK:
                page.check(selector)
            else:
                page.fill(selector, text)
        if shot.submit:
            page.click(shot.submit)
            page.wait_for_load_state()
            settle(page)
        return weight

    def _look(self, window: _Window, shot: Shot, weight: int, *, first: bool) -> list[str]:
        page, problems = window.page, []
        settle(page)
        if first and weight > HEAVIEST:
            problems.append(f"weighs {weight / 1024:.0f} KB, more than {HEAVIEST / 1024:.0f}")
        if page.evaluate(SIDEWAYS):
            problems.append("scrolls sideways")
        if not shot.narrow and page.evaluate(CUT_OFF):
            problems.append("a table is wider than its card")
        self._picture(page, shot)
        problems += window.errors
        if first:
            page.evaluate(REMEMBER)
            problems += barriers(page)
        elif shot.narrow:
            # The document is the same, and so are most of its colours.
            problems += barriers(page, {"rules": {CONTRAST: {"enabled": False}}})
            problems += barriers(page, {"runOnly": [CONTRAST]}, CHANGED)
        else:
            problems += barriers(page, {"runOnly": [CONTRAST, LINKS]})
        # What axe-core itself does to the page is not the page's fault.
        window.errors.clear()
        return [f"{shot.name}: {problem}" for problem in problems]


def settle(page: Page) -> None:
    """Wait until fonts and what htmx asked for are there. (Waiting for the network takes half a second a page.)"""
    page.evaluate(SETTLED)


def weight_of(answer: Any) -> int:
    """Bytes of an answer (playwright's) as they travel in production, where static files are compressed too.
    A file that the browser has already (304) weighs what it weighs for others."""
    path = urlsplit(answer.url).path
    if answer.status not in {200, 304}:
        return 0
    if path.startswith(settings.STATIC_URL):
        return _packed(path.removeprefix(settings.STATIC_URL))
    # The browser has unpacked it.
    body = answer.body()
    return len(gzip.compress(body) if answer.headers.get("content-encoding") == "gzip" else body)


@cache
def _packed(path: str) -> int:
    found = finders.find(path)
    if found is None:
        raise FileNotFoundError(path)
    return len(gzip.compress(Path(found).read_bytes()))


def barriers(page: Page, options: dict[str, Any] | None = None, within: str = "[document]") -> list[str]:
    """What axe-core finds on the page that keeps people out: the rule, and the element that breaks it.

    ``options`` are axe-core's; ``within`` is a JavaScript expression of the elements to ask, maybe none.
    """
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types

    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    violations = page.evaluate(
        f"async options => {{ const within = {within};"
        " return within.length ? (await axe.run(within, options)).violations : []; }",
        {"resultTypes": ["violations"], **(options or {})},
    )
    return [
        f"{finding['id']} ({finding['impact']}): {node['html'][:200]}"
        for finding in violations
        if finding["impact"] in GRAVE
        for node in finding["nodes"]
    ]
