"""What ``make shots`` finds wrong with a page, each fault on a page of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.management.inspection import Inspector, Shot

pytestmark = pytest.mark.browser

DARK, SMALL = "@media (prefers-color-scheme: dark)", "@media (max-width: 640px)"
SOUND = (
    '<!doctype html><html lang="en"><head><title>Page</title><link rel="icon" href="data:,">'
    "<style>body { background: #fff; color: #000; margin: 0; }"
    f"{DARK} {{ body {{ background: #000; color: #fff; }} }} STYLE</style></head>"
    "<body><main><h1>Words</h1><p>Some <b>more</b> words</p>BODY</main></body></html>"
)
LOOKS = ("", "-dark", "-narrow")
CONTRAST = "color-contrast (serious)"


def page(style: str = "", body: str = "") -> str:
    return SOUND.replace("STYLE", style).replace("BODY", body)


# A page, and what is found at each of its looks: wide, dark, narrow.
CASES: dict[str, tuple[str, tuple[list[str], list[str], list[str]]]] = {
    "sound": (page(), ([], [], [])),
    # Light grey is well seen in the dark, and no other grey on a narrow screen.
    "pale": (page("p { color: #ccc; }"), ([CONTRAST, CONTRAST], [], [])),
    "dark-on-dark": (page(f"{DARK} {{ p {{ color: #333; }} }}"), ([], [CONTRAST, CONTRAST], [])),
    "pale-when-narrow": (page(f"{SMALL} {{ p {{ color: #ccc; }} }}"), ([], [], [CONTRAST, CONTRAST])),
    "on-dark-when-narrow": (page(f"{SMALL} {{ p {{ background: #222; }} }}"), ([], [], [CONTRAST, CONTRAST])),
    "seen-when-narrow": (
        page(f"b {{ color: #ccc; display: none; }} {SMALL} {{ b {{ display: inline; }} }}"),
        ([], [], [CONTRAST]),
    ),
    "link-by-colour-alone": (
        page(
            f"a {{ color: #00c; }} {DARK} {{ a {{ color: #ddd; text-decoration: none; }} }}",
            ('<p>Words around <a href="#">a link</a> and behind it</p>'),
        ),
        ([], ["link-in-text-block (serious)"], []),
    ),
    "no-language": (
        page().replace(' lang="en"', ""),
        (["html-has-lang (serious)"], [], ["html-has-lang (serious)"]),
    ),
    "sideways": (
        page("p { width: 2000px; }"),
        (["scrolls sideways"], ["scrolls sideways"], ["scrolls sideways"]),
    ),
    "sideways-when-narrow": (page("p { width: 500px; }"), ([], [], ["scrolls sideways"])),
    "cut-off": (
        page(
            ".table-wrap { width: 99px; overflow: auto; } .table-wrap a { display: block; width: 200px; }",
            '<div class="table-wrap"><a href="#">x</a></div>',
        ),
        (["a table is wider than its card"], ["a table is wider than its card"], []),
    ),
    "script": (page(body="<script>throw new Error('oops')</script>"), (["oops"], [], [])),
    # What htmx asked for comes, with a fault, while the page is looked at.
    "late": (
        page(
            body=(
                '<p id="late" class="htmx-request">Wait</p><script>setTimeout(() => {'
                " late.className = ''; late.style.color = '#ccc'; }, 500)</script>"
            )
        ),
        ([CONTRAST], [], []),
    ),
    "missing-file": (page(body='<script src="/gone-500"></script>'), (["Failed to load resource"], [], [])),
    "heavy": (page(body=f"<!-- {'x' * 160_000} -->"), (["weighs 157 KB, more than 150"], [], [])),
}


class Pages(BaseHTTPRequestHandler):
    """Serves the cases."""

    def do_GET(self) -> None:
        case = CASES.get(self.path.removeprefix("/"))
        body = case[0].encode() if case else b""
        self.send_response(200 if case else 500)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        # As strict as that of the console in what matters to an inspector.
        self.send_header("Content-Security-Policy", "script-src 'self' 'unsafe-inline'")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def inspected(chromium: str, base: str) -> dict[str, list[str]]:
    """What is found, by the look's name, in one window for all pages."""
    from playwright.sync_api import sync_playwright

    shots = [
        Shot(f"{case}{look}", f"/{case}", "ann@acme.example", look == "-dark", look == "-narrow")
        for case in CASES
        for look in LOOKS
    ]
    pictures = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        inspector = Inspector(
            browser, base, {"ann@acme.example": "session"}, lambda _, shot: pictures.append(shot)
        )
        found = {found.shot.name: found.problems for found in inspector.inspect(shots)}
        browser.close()
    assert pictures == shots
    return found


@pytest.fixture(scope="module")
def problems(chromium: str) -> Iterator[dict[str, list[str]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    # In a thread of its own, since Playwright keeps an event loop running in its thread.
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(inspected, chromium, f"http://127.0.0.1:{server.server_port}").result()
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.mark.parametrize("case", list(CASES))
def test_each_fault_is_found_at_the_looks_that_show_it(case: str, problems: dict[str, list[str]]) -> None:
    for look, expected in zip(LOOKS, CASES[case][1], strict=True):
        found = problems[f"{case}{look}"]
        assert len(found) == len(expected), found
        for problem, words in zip(found, expected, strict=True):
            assert problem.startswith(f"{case}{look}: {words}")
