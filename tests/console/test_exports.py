"""The exports page: asking, watching, fetching, removing; a link is its tenant's and ends."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django_scopes import scopes_disabled
from pytest_django import Settings

from billing.exports import making
from billing.exports.files import file_of
from billing.models import Export
from billing.services.exports import request_export
from gateway.console import downloads
from tenants.models import Membership
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, rollup

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]

EXPORTS = "/o/acme/exports/"
WANTED = {"what": "usage", "format": "csv", "by": "user", "from": "2026-03-01", "to": "2026-03-31"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.EXPORT_DIR = tmp_path
    return tmp_path


@pytest.fixture
def acme() -> Tenant:
    tenant = make_tenant("acme")
    event(tenant.backend, "2026-03-02T10:00", "req-1", "4")
    rollup(tenant.backend, "2026-03-02T10:00", "4")
    return tenant


def signed_in(membership: Membership) -> Client:
    client = Client()
    client.force_login(membership.user)
    return client


@pytest.fixture
def finance(acme: Tenant) -> Client:
    return signed_in(make_member(acme.organization, "fay@acme.example", Role.FINANCE))


def only() -> Export:
    with scopes_disabled():
        return Export.objects.select_related("organization").get()


def made(tenant: Tenant, **changes: Any) -> Export:
    """A finished export of March, of ``tenant``."""
    request_export(
        acting_user=None, organization=tenant.organization, what="usage", format="csv",
        first=date(2026, 3, 1), last=date(2026, 3, 31),
    )  # fmt: skip
    making.make_due()
    with scopes_disabled():
        export = Export.objects.get(organization=tenant.organization)
        Export.objects.filter(pk=export.pk).update(**changes)
    return export


def test_what_was_asked_for_is_made_and_can_be_fetched(finance: Client) -> None:
    response = finance.post(EXPORTS, WANTED | {"team": "search", "model": "fast"})
    assert (response.status_code, response.headers["Location"]) == (302, EXPORTS)
    export = only()
    assert (export.what, export.format, export.first, export.last) == (
        "usage", "csv", date(2026, 3, 1), date(2026, 3, 31),
    )  # fmt: skip
    assert "Waiting" in finance.get(EXPORTS).content.decode()
    making.make_due()
    page = finance.get(EXPORTS).content.decode()
    assert "team search" in page
    assert "model fast" in page
    assert "equals the report" in page
    link = f"{EXPORTS}{export.reference}/file"
    assert link in page
    response = finance.get(link)
    content = b"".join(response)
    assert content == file_of(export.reference, "csv").read_bytes()
    assert int(response.headers["Content-Length"]) == len(content)
    assert response.headers["Content-Disposition"] == (
        'attachment; filename="usage-acme-2026-03-01-2026-03-31.csv"'
    )
    digest = hashlib.sha256(content).hexdigest()
    assert digest in page
    assert finance.get(f"{EXPORTS}{export.reference}/sha256").content.decode() == (
        f"{digest}  usage-acme-2026-03-01-2026-03-31.csv\n"
    )


def test_the_page_looks_again_only_while_something_is_made(acme: Tenant, finance: Client) -> None:
    export = made(acme)
    assert "hx-trigger" not in finance.get(EXPORTS).content.decode()
    with scopes_disabled():
        Export.objects.filter(pk=export.pk).update(state="running", expected=200, requests=50)
    page = finance.get(EXPORTS).content.decode()
    assert 'hx-trigger="every 2s"' in page
    assert 'value="25"' in page
    assert "/file" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"what": "secrets"}, "what: “secrets” cannot be exported"),
        ({"format": "pdf"}, "format: “pdf” is no format"),
        ({"what": "report", "by": "deployment"}, "by: “deployment” is no dimension"),
        ({"from": "March"}, "from: “March” is no date"),
        ({"team": "nobody"}, "there is no team “nobody”"),
    ],
)
def test_what_makes_no_sense_is_named_and_nothing_typed_is_lost(
    finance: Client, change: dict[str, str], message: str
) -> None:
    response = finance.post(EXPORTS, WANTED | {"model": "quality"} | change)
    assert response.status_code == 422
    page = response.content.decode()
    assert message in page
    assert 'value="quality"' in page
    with scopes_disabled():
        assert not Export.objects.exists()


@pytest.mark.parametrize("what", ["file", "sha256", "remove"])
def test_another_tenants_export_does_not_exist(acme: Tenant, finance: Client, what: str) -> None:
    theirs = made(make_tenant("globex"))
    address = f"{EXPORTS}{theirs.reference}/{what}"
    response = finance.post(address) if what == "remove" else finance.get(address)
    assert response.status_code == 404
    assert only() == theirs


@pytest.mark.parametrize(
    "change",
    [{"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, {"state": "running"}, {"state": "failed"}],
)
def test_a_link_ends_with_its_time(acme: Tenant, finance: Client, change: dict[str, Any]) -> None:
    export = made(acme, **change)
    assert finance.get(f"{EXPORTS}{export.reference}/file").status_code == 404
    assert finance.get(f"{EXPORTS}{export.reference}/sha256").status_code == 404


def test_a_file_that_is_lost_is_not_found(acme: Tenant, finance: Client) -> None:
    export = made(acme)
    file_of(export.reference, "csv").unlink()
    assert finance.get(f"{EXPORTS}{export.reference}/file").status_code == 404


def test_removing_takes_the_file_along(
    acme: Tenant, finance: Client, folder: Path, django_capture_on_commit_callbacks: Any
) -> None:
    export = made(acme)
    with django_capture_on_commit_callbacks(execute=True):
        assert finance.post(f"{EXPORTS}{export.reference}/remove").status_code == 302
    assert list(folder.iterdir()) == []
    with scopes_disabled():
        assert not Export.objects.exists()


@pytest.mark.parametrize(
    ("path", "what", "format_"), [("focus.csv", "focus", "csv"), ("usage.xlsx", "usage", "xlsx")]
)
def test_a_file_too_large_to_wait_for_leads_here_with_the_form_filled_in(
    acme: Tenant, finance: Client, monkeypatch: pytest.MonkeyPatch, path: str, what: str, format_: str
) -> None:
    monkeypatch.setattr(downloads, "AT_ONCE", 2)
    rollup(acme.backend, "2026-03-03T10:00", "4", requests=3)
    response = finance.get(f"/o/acme/costs/{path}?from=2026-03-01&to=2026-03-31&team=search", follow=True)
    assert response.redirect_chain[0][0].startswith(EXPORTS)
    chosen = response.context["chosen"]
    assert (chosen["what"], chosen["format"], chosen["from"], chosen["to"], chosen["team"]) == (
        what, format_, "2026-03-01", "2026-03-31", "search",
    )  # fmt: skip
    assert "too many requests to make while you wait" in response.content.decode()
