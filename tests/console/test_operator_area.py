"""The operator area: who gets in, and what its pages say and do."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_scopes import scopes_disabled

from billing.journal import JournalWriter
from billing.models import DeadLetter, ReconcileReport, TaskRun, UsageEvent
from billing.services.wallet import top_up, wallet
from gateway.operators.tenants import tenant_rows
from gateway.operators.work import journal_state, tasks
from tenants.models import AuditEntry, Organization, User
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, make_member, make_tenant

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def everywhere() -> Iterator[None]:
    """The operators' pages, and so these tests, see all tenants."""
    with scopes_disabled():
        yield


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("olga@platform.example", is_staff=True))
    return client


def letter_for(tenant: Tenant, **changes: Any) -> DeadLetter:
    """A record as the shipper put it aside, of a request that could be in the books."""
    record = {
        "t": "end",
        "request_id": f"req-{uuid4().hex[:8]}",
        "started_at": "2026-03-01T10:00:00+00:00",
        "ended_at": "2026-03-01T10:00:02+00:00",
        "organization_id": tenant.organization.pk,
        "team_id": tenant.search.pk,
        "key_id": tenant.batch.pk,
        "member_id": None,
        "model_group": "fast",
        "deployment": "d",
        "provider": "p",
        "endpoint": "chat.completions",
        "streamed": False,
        "status": 200,
        "end_reason": "completed",
        "attempts": [],
        "input_tokens": 10,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 5,
        "reasoning_tokens": 0,
        "usage_source": "reported",
        "cost": "0.25",
        "charge": "0.5",
        "budget_ids": [wallet(tenant.organization).pk],
        "duration_ms": 2000,
        "tags": {"note": "typed-by-a-client"},
        **changes,
    }
    return DeadLetter.objects.create(record=orjson.dumps(record).decode(), reason="refused once")


# --- Who gets in ------------------------------------------------------------------------------------


def addresses(tenant: Tenant) -> dict[str, str]:
    letter = letter_for(tenant)
    report = ReconcileReport.objects.create(balanced=True)
    return {
        "tenants": reverse("operator:tenants"),
        "tenant": reverse("operator:tenant", args=[tenant.organization.slug]),
        "health": reverse("operator:health"),
        "work": reverse("operator:work"),
        "reconcile": reverse("operator:reconcile"),
        "report": reverse("operator:reconcile_report", args=[report.pk]),
        "letters": reverse("operator:dead_letters"),
        "letter": reverse("operator:dead_letter", args=[letter.pk]),
    }


def test_operators_see_every_page_and_owners_none(acme: Tenant, operator: Client) -> None:
    owner = Client()
    owner.force_login(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
    for address in addresses(acme).values():
        assert operator.get(address).status_code == 200, address
        assert owner.get(address).status_code == 404, address
        assert Client().get(address).status_code == 302, address


def test_the_navigation_is_the_operators_own_and_marks_the_page(operator: Client) -> None:
    html = operator.get("/operator/work/").content.decode()
    nav = html[html.index('aria-label="Sections"') : html.index("</nav>")]
    assert nav.count("<li>") == 6
    assert nav.count('aria-current="page"') == 1
    assert "/o/" not in nav


def test_an_owner_can_change_nothing_there(acme: Tenant) -> None:
    owner = Client()
    owner.force_login(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
    letter = letter_for(acme)
    assert (
        owner.post("/operator/tenants/acme/standing/", {"do": "suspend", "sure": "acme"}).status_code == 404
    )
    sent = {"do": "discard", "reason": "x"}
    assert owner.post(f"/operator/dead-letters/{letter.pk}/", sent).status_code == 404
    acme.organization.refresh_from_db()
    assert acme.organization.suspended_at is None
    assert DeadLetter.objects.filter(pk=letter.pk).exists()


# --- Tenants ----------------------------------------------------------------------------------------


def test_a_tenant_is_suspended_only_with_its_name_typed_and_resumed_again(
    acme: Tenant, operator: Client
) -> None:
    address = "/operator/tenants/acme/standing/"
    operator.post(address, {"do": "suspend", "sure": "acmee"})
    assert Organization.objects.get(slug="acme").suspended_at is None
    operator.post(address, {"do": "suspend", "sure": "acme"})
    assert Organization.objects.get(slug="acme").suspended_at is not None
    operator.post(address, {"do": "resume"})
    assert Organization.objects.get(slug="acme").suspended_at is None
    who = AuditEntry.objects.filter(target_type="organization").values_list("actor__email", "verb")
    assert list(who) == [("olga@platform.example", "changed")] * 2


def test_the_list_finds_filters_and_pages_by_slug(operator: Client) -> None:
    for number in range(51):
        Organization.objects.create(slug=f"t{number:02}", name=f"Tenant {number}")
    Organization.objects.filter(slug="t07").update(suspended_at=NOW)
    page = operator.get("/operator/").context
    assert [row.organization.slug for row in page["rows"]] == [f"t{number:02}" for number in range(50)]
    rest = operator.get(f"/operator/?after={page['older']}").context
    assert [row.organization.slug for row in rest["rows"]] == ["t50"]
    (found,) = operator.get("/operator/?q=Tenant 33").context["rows"]
    assert found.organization.slug == "t33"
    (found,) = operator.get("/operator/?state=suspended").context["rows"]
    assert (found.organization.slug, found.attention) == ("t07", "suspended")


def test_balance_and_what_may_be_spent_are_the_books(operator: Client) -> None:
    organization = make_tenant("acme").organization
    Organization.objects.filter(pk=organization.pk).update(billing="prepaid")
    organization.refresh_from_db()
    wallet(organization)
    top_up(acting_user=None, organization=organization, amount=Decimal("12.50"), reference="w-1")
    (row,) = tenant_rows([organization], datetime.now(UTC))
    assert (row.balance, row.spendable, row.charge, row.attention) == (
        Decimal("12.50"),
        Decimal("12.50"),
        Decimal(0),
        "",
    )


def test_queries_do_not_grow_with_tenants_and_letters(acme: Tenant, operator: Client) -> None:
    def counted(address: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert operator.get(address).status_code == 200
        return len(queries)

    pages = ("/operator/", "/operator/work/", "/operator/reconcile/", "/operator/dead-letters/")
    letter_for(acme)
    ReconcileReport.objects.create(balanced=True)
    before = [counted(page) for page in pages]
    for number in range(20):
        make_tenant(f"t{number}")
        letter_for(acme)
        ReconcileReport.objects.create(balanced=True)
    assert [counted(page) for page in pages] == before


# --- Dead letters -----------------------------------------------------------------------------------


def test_a_letter_that_is_tried_again_is_charged_once(acme: Tenant, operator: Client) -> None:
    letter = letter_for(acme, request_id="req-late")
    again = DeadLetter.objects.create(record=letter.record, reason="twice")
    assert operator.post(f"/operator/dead-letters/{letter.pk}/", {"do": "retry"}).status_code == 302
    event = UsageEvent.objects.get(request_id="req-late")
    assert (event.charge, event.cost) == (Decimal("0.5"), Decimal("0.25"))
    assert wallet(acme.organization).spent == Decimal("0.5")
    operator.post(f"/operator/dead-letters/{again.pk}/", {"do": "retry"})
    assert wallet(acme.organization).spent == Decimal("0.5")
    assert not DeadLetter.objects.exists()
    entries = AuditEntry.objects.filter(verb="retried").order_by("pk")
    assert [entry.detail["new event"] for entry in entries] == [True, False]


def test_a_letter_that_is_refused_again_stays_as_it_was(acme: Tenant, operator: Client) -> None:
    letter = letter_for(acme, charge="much")
    page = operator.post(f"/operator/dead-letters/{letter.pk}/", {"do": "retry"}, follow=True)
    assert "refused again" in page.content.decode()
    assert list(DeadLetter.objects.values_list("pk", "reason")) == [(letter.pk, "refused once")]
    assert not AuditEntry.objects.filter(verb="retried").exists()


def test_giving_a_letter_up_needs_a_reason_and_leaves_it_in_the_audit_log(
    acme: Tenant, operator: Client
) -> None:
    letter = letter_for(acme, request_id="req-lost")
    address = f"/operator/dead-letters/{letter.pk}/"
    page = operator.post(address, {"do": "discard", "reason": " "})
    assert page.status_code == 422
    assert "reason: say why" in page.content.decode()
    assert DeadLetter.objects.filter(pk=letter.pk).exists()
    operator.post(address, {"do": "discard", "reason": "test traffic"})
    assert not DeadLetter.objects.exists()
    detail = AuditEntry.objects.get(verb="discarded").detail
    assert (detail["reason"], detail["request_id"], detail["charge"]) == ("test traffic", "req-lost", "0.5")


def test_what_a_client_typed_is_not_shown(acme: Tenant, operator: Client) -> None:
    letter = letter_for(acme)
    torn = DeadLetter.objects.create(record='{"t":"end","secret-half', reason="unreadable")
    for address in (f"/operator/dead-letters/{letter.pk}/", f"/operator/dead-letters/{torn.pk}/"):
        html = operator.get(address).content.decode()
        assert "typed-by-a-client" not in html
        assert "secret-half" not in html
    assert operator.post(f"/operator/dead-letters/{torn.pk}/", {"do": "retry"}).status_code == 302
    assert DeadLetter.objects.filter(pk=torn.pk).exists()


# --- Books, work ------------------------------------------------------------------------------------


def test_differences_are_named_and_searched(operator: Client) -> None:
    differences = [
        {"organization": slug, "what": "charge", "where": "2026-03-01", "expected": "1", "found": "2"}
        for slug in ("acme", "globex")
    ]
    report = ReconcileReport.objects.create(balanced=False, differences=differences)
    page = operator.get(f"/operator/reconcile/{report.pk}/?q=glob").context
    assert [one["organization"] for one in page["differences"]] == ["globex"]
    ReconcileReport.objects.create(balanced=True)
    listed = operator.get("/operator/reconcile/?only=differences").context["reports"]
    assert [one.pk for one in listed] == [report.pk]


@pytest.mark.parametrize(
    ("began", "ended", "error", "state"),
    [
        (2, 1, "", "well"),
        (2, 1, "ValueError", "failed"),
        (2, 3, "", "running"),
        # Every 5 seconds: three of them and a minute.
        (76, 75, "", "late"),
        (74, 73, "", "well"),
    ],
)
def test_a_task_is_late_failed_running_or_well(began: int, ended: int, error: str, state: str) -> None:
    TaskRun.objects.create(
        name="post_usage",
        started_at=NOW - timedelta(seconds=began),
        ended_at=NOW - timedelta(seconds=ended),
        error=error,
    )
    found = {task.name: task.state for task in tasks(NOW)}
    assert found["post_usage"] == state
    assert found["refresh_rollups"] == "never"


def test_the_journal_page_tells_living_workers_dead_ones_and_the_shipper(tmp_path: Path) -> None:
    living, dead = uuid4(), uuid4()
    writer = JournalWriter(tmp_path, living)
    try:
        writer.begin({"request_id": "a"})
        (tmp_path / f"{dead.hex}-000001.journal").write_bytes(b"12345")
        state = journal_state(tmp_path)
        found = {worker.id: (worker.alive, worker.segments) for worker in state.workers}
        assert found == {living: (True, 1), dead: (False, 1)}
        assert not state.shipping
        lock = os.open(tmp_path / "shipper.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert journal_state(tmp_path).shipping
        os.close(lock)
    finally:
        writer.close()
