"""A company's first day with Weir, in a browser, from nothing: nobody here has read a manual.

Everything runs as processes: console and API on one server, a simulated provider, the shipper. Mail goes to
files. What Celery does every two seconds (hourly sums, postings) is done between the steps.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
import pytest
from django_scopes import scope

from billing import ledger, rollups
from billing.models import LedgerEntry
from tenants.models import AuditEntry, Organization
from tests.browser.conftest import Browse
from tests.stack import Stack, running_stack

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PASSWORD = "a long walk by the river"
LINK = re.compile(r"http://127\.0\.0\.1:\d+/\S+")


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    """Where mail is written to."""
    path = tmp_path / "mail"
    path.mkdir()
    return path


@pytest.fixture
def own_stack(
    _committing: None, tmp_path: Path, mailbox: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    monkeypatch.setenv("SIGN_UP", "open")
    monkeypatch.setenv("SIGN_UP_CREDIT", "5")
    monkeypatch.setenv("EMAIL_VERIFICATION", "mandatory")
    monkeypatch.setenv("EMAIL_URL", f"filemail:///{mailbox}")
    with running_stack(tmp_path) as stack:
        yield stack


@pytest.fixture
def base_url(own_stack: Stack) -> str:
    """The console of the stack, in the place of the one that other browser tests have."""
    return own_stack.url


def mailed_link(mailbox: Path, to: str) -> str:
    """The path of the newest link in a mail to ``to``, which is waited for."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        mails = [
            path.read_text() for path in sorted(mailbox.iterdir(), key=lambda path: path.stat().st_mtime)
        ]
        found = [LINK.search(mail) for mail in mails if f"To: {to}" in mail]
        if found and found[-1] is not None:
            return urlsplit(found[-1].group()).path
        time.sleep(0.1)
    raise AssertionError(f"No mail with a link came to {to}.")


def sign_in(page: Page, email: str) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/o/**")


def section(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()


def summed() -> None:
    """What Celery does all the time."""
    while rollups.refresh():
        pass
    while ledger.post_usage():
        pass


def owner_signs_up(page: Page, mailbox: Path) -> None:
    page.goto("/")
    page.get_by_role("link", name="Make an account").click()
    page.get_by_label("E-mail address").fill("olive@walk.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Make account").click()
    page.get_by_text("olive@walk.example").wait_for()
    page.goto(mailed_link(mailbox, "olive@walk.example"))
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Name", exact=True).fill("Walk & Co")
    page.get_by_role("button", name="Make organization").click()
    page.get_by_role("heading", name="Walk & Co").wait_for()


def owner_invites(page: Page, email: str, role: str, *, team_role: str = "") -> None:
    section(page, "Members")
    page.get_by_role("link", name="Invite").first.click()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Role in the organization").select_option(label=role)
    if team_role:
        page.get_by_label("Main").check()
        page.get_by_label("Role in these teams").select_option(label=team_role)
    page.get_by_role("button", name="Send invitation").click()
    page.get_by_text(email).first.wait_for()


def joins(page: Page, link: str, mailbox: Path, email: str) -> None:
    page.goto(link)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.get_by_role("button", name="Make account and join").click()
    # Whoever invites sees the link too, so it does not prove whose the address is.
    page.get_by_role("heading", name="Look into your inbox").wait_for()
    page.goto(mailed_link(mailbox, email))
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url("**/o/walk-co/**")


def admin_makes_a_key_with_a_budget(page: Page) -> str:
    section(page, "Keys")
    page.get_by_role("link", name="New key").first.click()
    page.get_by_label("Name", exact=True).fill("first-app")
    page.get_by_role("button", name="Make key").click()
    secret = page.locator("#secret").inner_text()
    section(page, "Quotas")
    page.get_by_label("Limit", exact=True).select_option(label="Main / first-app")
    page.get_by_role("button", name="Set limits").click()
    page.get_by_label("Budget a day").fill("0.01")
    page.get_by_role("button", name="Save limits").click()
    page.get_by_text("Saved the limits of first-app").wait_for()
    return secret


def admin_tries_the_playground(page: Page) -> str:
    """What the page says that the answer was charged, once it is in the books."""
    section(page, "Playground")
    page.get_by_label("Model", exact=True).select_option("sim-small")
    page.get_by_label("Message").fill("words=5 Say hello")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("Answered.", exact=True).wait_for()
    page.locator("#figure-charge", has_text="$").wait_for()
    return page.locator("#figure-charge").inner_text().removeprefix("$")


def spends_until_refused(stack: Stack, secret: str) -> openai.RateLimitError:
    """Ask until the budget of one cent is used up; returns the refusal."""
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=secret, max_retries=0)
    for _ in range(100):
        try:
            client.chat.completions.create(
                model="sim-small",
                max_tokens=200,
                messages=[{"role": "user", "content": "words=100 Tell me of the river."}],
            )
        except openai.RateLimitError as refused:
            return refused
    raise AssertionError("Nothing was refused.")


def admin_raises(page: Page) -> None:
    section(page, "Quotas")
    page.get_by_role("link", name="Edit the limits of first-app").click()
    page.get_by_role("spinbutton", name="Budget a day").fill("1")
    page.get_by_role("button", name="Save limits").click()
    page.get_by_text("Saved the limits of first-app").wait_for()


def download(page: Page, click: Callable[[], Any]) -> str:
    with page.expect_download() as waiting:
        click()
    return Path(waiting.value.path()).read_text()


def sum_of(text: str, column: str) -> Decimal:
    return sum((Decimal(row[column]) for row in csv.DictReader(io.StringIO(text))), Decimal(0))


def test_a_companys_first_day(own_stack: Stack, browse: Browse, mailbox: Path) -> None:
    browse(lambda page: owner_signs_up(page, mailbox))
    organization = Organization.objects.get(slug="walk-co")

    def invites(page: Page) -> None:
        sign_in(page, "olive@walk.example")
        owner_invites(page, "tom@walk.example", "Member", team_role="Admin")
        owner_invites(page, "fiona@walk.example", "Finance")
        owner_invites(page, "vic@walk.example", "Viewer")

    browse(invites)
    links = {name: mailed_link(mailbox, f"{name}@walk.example") for name in ("tom", "fiona", "vic")}

    def tom_starts(page: Page) -> tuple[str, str]:
        joins(page, links["tom"], mailbox, "tom@walk.example")
        return admin_makes_a_key_with_a_budget(page), admin_tries_the_playground(page)

    secret, tried = browse(tom_starts)
    assert Decimal(tried) > 0
    refused = spends_until_refused(own_stack, secret)
    assert refused.code == "insufficient_quota"
    assert "first-app" in refused.message
    assert "resets at" in refused.message
    own_stack.settled()
    summed()

    def tom_reads_why_and_raises(page: Page) -> tuple[str, str]:
        sign_in(page, "tom@walk.example")
        section(page, "Quotas")
        row = page.locator("tr", has_text="first-app").first.inner_text()
        section(page, "Requests")
        page.get_by_text("insufficient_quota").first.wait_for()
        page.locator("a[href*='/requests/req_']").first.click()
        why = page.locator("main").inner_text()
        admin_raises(page)
        return row, why

    row, why = browse(tom_reads_why_and_raises)
    assert "of $0.01 a day" in row
    assert "first-app" in why
    client = openai.OpenAI(base_url=f"{own_stack.url}/v1", api_key=secret, max_retries=0)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.chat.completions.create(
                model="sim-small", max_tokens=200, messages=[{"role": "user", "content": "words=5"}]
            )
            break
        except openai.RateLimitError:
            # Every worker knows of it within a second.
            assert time.monotonic() < deadline, "The raised limit let nothing through."
            time.sleep(0.2)
    own_stack.settled()
    summed()

    def fiona_exports(page: Page) -> tuple[str, str]:
        joins(page, links["fiona"], mailbox, "fiona@walk.example")
        section(page, "Costs")
        page.get_by_text("Download", exact=True).click()
        usage = download(page, lambda: page.get_by_role("link", name="Usage CSV").click())
        focus = download(page, lambda: page.get_by_role("link", name="FOCUS CSV").click())
        return usage, focus

    usage, focus = browse(fiona_exports)
    with scope(organization=organization):
        revenue = -sum(
            LedgerEntry.objects.filter(account="revenue").values_list("amount", flat=True), Decimal(0)
        )
    assert sum_of(usage, "charge") == revenue
    assert sum_of(focus, "BilledCost") == revenue
    # A request of 200 tokens can cost 0.0016: nothing is refused while that is left.
    assert revenue - Decimal(tried) > Decimal("0.01") - Decimal("0.0017")

    def vic_looks(page: Page) -> list[str]:
        joins(page, links["vic"], mailbox, "vic@walk.example")
        found = []
        for link in [
            entry.get_attribute("href") for entry in page.get_by_role("navigation").get_by_role("link").all()
        ]:
            if link and link.startswith("/o/"):
                page.goto(link)
                found += [
                    form.get_attribute("action") or link
                    for form in page.locator("main form[method=post]").all()
                ]
        return found

    with scope(organization=organization):
        before = AuditEntry.objects.count()
    # A viewer meets no form that would change something.
    assert browse(vic_looks) == []
    with scope(organization=organization):
        # That Vic joined is all there is to tell.
        assert AuditEntry.objects.count() - before <= 2
