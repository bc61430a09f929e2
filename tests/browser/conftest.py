"""A real Chromium before the console, served from this process.

A visit runs in a thread of its own: Playwright keeps an event loop running in its thread, in which
Django refuses to ask the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

from gateway.management.commands.shots import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE_MS = 15_000
# Chromium notes an answer to a form with an error in its console, and a refusal of the API.
NOTED = ("status of 422", "status of 429")
T = TypeVar("T")


class Browse(Protocol):
    """Runs a function with a fresh page and returns what it returns; an error in the browser fails the test."""

    def __call__(self, visit: Callable[[Page], T], *, javascript: bool = True) -> T: ...


@pytest.fixture
def base_url(committed: None, settings: Any) -> Iterator[str]:
    """The address of the console, served over real HTTP from this process and its database."""
    with served() as base:
        settings.PUBLIC_URL = base
        yield base


@pytest.fixture
def browse(chromium: str, base_url: str) -> Iterator[Browse]:
    """Visits to the console in a browser."""
    from playwright.sync_api import sync_playwright

    def visited(visit: Callable[[Page], T], javascript: bool) -> T:
        problems: list[str] = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(base_url=base_url, java_script_enabled=javascript)
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console",
                lambda line: (
                    problems.append(line.text)
                    if line.type in {"error", "warning"} and not any(words in line.text for words in NOTED)
                    else None
                ),
            )
            result = visit(page)
            browser.close()
        assert problems == []
        return result

    with ThreadPoolExecutor(max_workers=1) as thread:

        def run(visit: Callable[[Page], T], *, javascript: bool = True) -> T:
            return thread.submit(visited, visit, javascript).result()

        yield run
