"""The operator area: who gets in, and what its pages say and do."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
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
from billing.models import DeadLetter, Price, ReconcileReport, TaskRun, UsageEvent
from billing.services.prices import set_price
from billing.services.wallet import top_up, wallet
from gateway.models import UsageCheck
from gateway.operators.tenants import tenant_rows
from gateway.operators.work import journal_state, tasks
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services.providers import create_provider, stored_secrets
from tenants.models import AuditEntry, Organization, User
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, make_member, make_tenant, rollup
from tests.signed_in import signed_in

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]

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
    return signed_in(User.objects.create_user("olga@platform.example", is_staff=True))


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
        "accounting": reverse("operator:accounting"),
        "margin": reverse("operator:margin"),
        "providers": reverse("operator:providers"),
        "provider": reverse("operator:provider", args=[upstream().name]),
        "price_sync": reverse("operator:price_sync"),
        "work": reverse("operator:work"),
        "reconcile": reverse("operator:reconcile"),
        "report": reverse("operator:reconcile_report", args=[report.pk]),
        "letters": reverse("operator:dead_letters"),
        "letter": reverse("operator:dead_letter", args=[letter.pk]),
    }


def test_operators_see_every_page_and_owners_none(acme: Tenant, operator: Client) -> None:
    owner = signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
    for address in addresses(acme).values():
        assert operator.get(address).status_code == 200, address
        assert owner.get(address).status_code == 404, address
        assert Client().get(address).status_code == 302, address


def test_the_navigation_is_the_operators_own_and_marks_the_page(operator: Client) -> None:
    html = operator.get("/operator/work/").content.decode()
    nav = html[html.index('aria-label="Sections"') : html.index("</nav>")]
    assert nav.count("<li>") == 12
    assert nav.count('aria-current="page"') == 1
    assert "/o/" not in nav


def test_an_owner_can_change_nothing_there(acme: Tenant) -> None:
    owner = signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
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


# --- Providers, prices, margin ----------------------------------------------------------------------

FIRST, SECOND = "first-provider-secret-000000000001", "second-provider-secret-00000000002"


def upstream(**columns: Any) -> Provider:
    given = {"kind": "generic", "base_url": "http://127.0.0.1:9/v1", "credentials": [FIRST], **columns}
    return create_provider(acting_user=None, name="upstream", **given)


def test_a_credential_is_added_taken_out_and_never_shown(operator: Client) -> None:
    provider, address = upstream(), "/operator/providers/upstream/"
    operator.post(address, {"do": "add", "secret": SECOND})
    assert stored_secrets(provider) == [FIRST, SECOND]
    page = operator.get(address)
    assert page.headers["Cache-Control"] == "no-store"
    assert not any(secret in page.content.decode() for secret in (FIRST, SECOND))
    old = provider.credentials.order_by("pk").first()
    assert old is not None
    operator.post(address, {"do": "remove", "credential": str(old.pk)})
    assert stored_secrets(provider) == [SECOND]
    entries = AuditEntry.objects.filter(verb="set credentials")
    assert not any(secret in str(list(entries.values())) for secret in (FIRST, SECOND))
    assert entries.filter(actor__email="olga@platform.example").count() == 2


def test_a_bad_credential_changes_nothing_and_is_not_repeated(operator: Client) -> None:
    provider = upstream()
    page = operator.post("/operator/providers/upstream/", {"do": "add", "secret": "two words\nof-a-secret"})
    assert page.status_code == 422
    assert "of-a-secret" not in page.content.decode()
    assert stored_secrets(provider) == [FIRST]


@pytest.fixture
def answering() -> Iterator[str]:
    """A provider that lists one model to whoever has the first credential; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path == "/v1/models" and self.headers["authorization"] == f"Bearer {FIRST}"
            body = orjson.dumps(
                {"data": [{"id": "small"}]} if good else {"error": self.headers["authorization"]}
            )
            self.send_response(200 if good else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_connection_is_tried_with_each_credential_and_tells_no_secret(
    operator: Client, answering: str
) -> None:
    provider = upstream(base_url=answering, credentials=[FIRST, SECOND])
    for name in ("small", "large"):
        Deployment.objects.create(name=name, provider=provider, model=name)
    page = operator.post("/operator/providers/upstream/", {"do": "test"})
    assert [(trial.good, trial.said) for trial in page.context["trials"]] == [
        (True, "Answered 200."),
        (False, "Answered 401: the credential is refused."),
    ]
    assert [each.name for each in page.context["unlisted"]] == ["large"]
    assert not any(secret in page.content.decode() for secret in (FIRST, SECOND))


def test_a_provider_that_is_not_there_is_told_without_its_words(operator: Client) -> None:
    upstream()
    (trial,) = operator.post("/operator/providers/upstream/", {"do": "test"}).context["trials"]
    assert (trial.good, trial.said) == (False, "No connection (ConnectError).")


def test_only_the_chosen_prices_are_set_and_a_great_rise_wants_a_word(operator: Client) -> None:
    provider = create_provider(acting_user=None, name="openai", kind="openai", credentials=[FIRST])
    for name in ("gpt-4o", "gpt-4o-mini"):
        made = Deployment.objects.create(name=name, provider=provider, model=name)
        set_price(acting_user=None, deployment=made, input=Decimal("0.01"), output=Decimal("0.01"))
    rows = {row[0].deployment.name: row[1] for row in operator.get("/operator/prices/").context["found"]}
    assert set(rows) == {"gpt-4o", "gpt-4o-mini"}
    sent = {"chosen": [rows["gpt-4o"]]}
    refused = operator.post("/operator/prices/", sent)
    assert (refused.status_code, Price.objects.count()) == (422, 2)
    assert operator.post("/operator/prices/", {**sent, "confirm": "yes"}).status_code == 302
    assert list(Price.objects.order_by("pk").values_list("deployment__name", flat=True)[2:]) == ["gpt-4o"]
    # What was seen is set already, so it is no proposal any more.
    assert operator.post("/operator/prices/", {**sent, "confirm": "yes"}).status_code == 422


def test_the_margin_is_charge_less_cost_by_tenant_provider_and_deployment(operator: Client) -> None:
    acme, globex = make_tenant("acme"), make_tenant("globex")
    Deployment.objects.create(name="a", provider=upstream(), model="a")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:00")
    rollup(acme.batch, now, "10", cost=Decimal(4), deployment="a")
    rollup(globex.batch, now, "1", cost=Decimal(3), deployment="a", requests=2)
    rollup(globex.batch, now, "2", cost=Decimal(1), deployment="gone")
    rollup(acme.batch, "2020-01-01T00:00", "99", deployment="a")

    def table(kind: str) -> list[tuple[str, int, Decimal]]:
        rows = operator.get(f"/operator/margin/?by={kind}").context["rows"]
        return [(row.name, row.requests, row.margin) for row in rows]

    assert table("tenant") == [("Acme", 1, Decimal(6)), ("Globex", 3, Decimal(-1))]
    assert table("deployment") == [("a", 3, Decimal(4)), ("gone", 1, Decimal(1))]
    assert table("provider") == [("upstream", 3, Decimal(4)), ("removed (gone)", 1, Decimal(1))]


# --- The accounting check ---------------------------------------------------------------------------


def checked(deployment: str, day: date, *counts: int, worst: str) -> None:
    names = ("requests", "reported_input", "counted_input", "reported_output", "counted_output")
    sums = dict(zip(names, counts, strict=True))
    UsageCheck.objects.create(deployment=deployment, day=day, worst_ratio=Decimal(worst), **sums)


def test_the_accounting_check_shows_who_reports_more_than_was_counted(operator: Client) -> None:
    today = datetime.now(UTC).date()
    checked("fair", today, 2, 100, 100, 40, 40, worst="1.1")
    checked("greedy", today, 1, 300, 100, 20, 20, worst="2.5")
    checked("greedy", today - timedelta(days=1), 1, 100, 100, 60, 20, worst="0.3")
    checked("greedy", today - timedelta(days=99), 9, 9, 9, 9, 9, worst="9")
    rows = operator.get("/operator/accounting/").context["rows"]
    assert [(row.name, row.requests, row.far, row.worst) for row in rows] == [
        # Reported 400 and 80 of 200 and 40: twice. Its farthest is 0.3, of which the inverse is 3.33.
        ("greedy", 2, True, Decimal("0.3")),
        ("fair", 2, False, Decimal("1.1")),
    ]
    assert (rows[0].input_ratio, rows[0].output_ratio, rows[0].ratio) == (2, 2, 2)
    days = operator.get("/operator/accounting/?deployment=greedy").context["rows"]
    assert [(row.name, row.requests) for row in days] == [
        (f"{today}", 1),
        (f"{today - timedelta(days=1)}", 1),
    ]


def test_taking_a_credential_out_says_first_that_it_cannot_be_restored(operator: Client) -> None:
    create_provider(
        acting_user=None,
        name="first",
        kind="openai",
        base_url="http://127.0.0.1:9/v1",
        credentials=["sk-0123456789abcdef"],
    )
    html = operator.get("/operator/providers/first/").content.decode()
    before, _, behind = html.partition('<details class="sure">')
    assert 'value="remove"' not in before
    within = " ".join(behind.partition("</details>")[0].split())
    assert "it cannot be read or restored. It is the only one" in within
    assert 'value="remove"' in within


def lines(client: Client, address: str) -> list[dict[str, str]]:
    response: Any = client.get(address)
    assert response.status_code == 200
    return list(csv.DictReader(io.StringIO(b"".join(response).decode())))


def test_the_file_of_tenants_has_those_that_the_filters_find(acme: Tenant, operator: Client) -> None:
    make_tenant("globex")
    Organization.objects.filter(slug="globex").update(suspended_at=NOW)
    top_up(acting_user=None, organization=acme.organization, amount=Decimal("12.5"), reference="r")
    found = lines(operator, "/operator/tenants.csv")
    assert [(line["slug"], line["balance"], line["attention"]) for line in found] == [
        ("acme", "12.50", ""),
        ("globex", "0.00", "suspended"),
    ]
    assert found[1]["suspended_at"] == "2026-03-15T12:00:00.000000Z"
    assert [line["slug"] for line in lines(operator, "/operator/tenants.csv?state=suspended")] == ["globex"]
    assert [line["slug"] for line in lines(operator, "/operator/tenants.csv?q=ACM")] == ["acme"]
    page = operator.get("/operator/?state=suspended&q=glo").content.decode()
    assert 'href="/operator/tenants.csv?q=glo&amp;state=suspended"' in page


def test_the_files_of_routes_have_no_secret(operator: Client) -> None:
    create_provider(
        acting_user=None,
        name="first",
        kind="openai",
        base_url="http://127.0.0.1:9/v1",
        credentials=["sk-0123456789abcdef"],
    )
    deployment = Deployment.objects.create(
        name="small", provider=Provider.objects.get(name="first"), model="gpt"
    )
    group = ModelGroup.objects.create(name="fast")
    GroupDeployment.objects.create(group=group, deployment=deployment)
    assert lines(operator, "/operator/providers.csv?q=FIRST") == [
        {
            "name": "first",
            "kind": "openai",
            "base_url": "http://127.0.0.1:9/v1",
            "credentials": "1",
            "deployments": "1",
        }
    ]
    (line,) = lines(operator, "/operator/deployments.csv")
    assert (line["name"], line["provider"], line["groups"]) == ("small", "first", '["fast"]')
    (line,) = lines(operator, "/operator/groups.csv")
    assert (line["name"], line["deployments"]) == ("fast", '["small"]')
    assert lines(operator, "/operator/deployments.csv?q=nothing") == []


def test_the_file_of_dead_letters_has_their_facts_and_never_the_record(
    acme: Tenant, operator: Client
) -> None:
    letter = letter_for(acme, request_id="req-1", end_user="ada")
    found = lines(operator, "/operator/dead-letters.csv?q=req-1")
    assert [(line["number"], line["request_id"]) for line in found] == [(str(letter.pk), "req-1")]
    assert "ada" not in str(found)
    assert lines(operator, "/operator/dead-letters.csv?q=req-2") == []


def test_the_file_of_margins_has_the_months_sums_to_the_last_digit(operator: Client) -> None:
    acme, globex = make_tenant("acme"), make_tenant("globex")
    Deployment.objects.create(name="a", provider=upstream(), model="a")
    now = datetime.now(UTC)
    rollup(
        acme.batch, f"{now:%Y-%m-%dT%H:00}", "0.000000000003", cost=Decimal("0.000000000001"), deployment="a"
    )
    rollup(globex.batch, f"{now:%Y-%m-%dT%H:00}", "1", cost=Decimal(3), deployment="a", requests=2)
    rollup(acme.batch, "2020-01-01T00:00", "99", deployment="a")
    columns = ("month", "by", "slug", "name", "requests", "cost", "charge", "margin", "currency")
    month = f"{now:%Y-%m}"
    found = lines(operator, f"/operator/margin.csv?month={month}")
    assert [tuple(line) for line in found] == [columns, columns]
    assert [tuple(line.values()) for line in found] == [
        (month, "tenant", "globex", "Globex", "2", "3.00", "1.00", "-2.00", "USD"),
        (month, "tenant", "acme", "Acme", "1", "0.000000000001", "0.000000000003", "0.000000000002", "USD"),
    ]
    assert [line["name"] for line in lines(operator, "/operator/margin.csv?q=GLO")] == ["Globex"]
    (provider,) = lines(operator, "/operator/margin.csv?by=provider")
    assert (provider["slug"], provider["name"], provider["requests"]) == ("", "upstream", "3")
    page = operator.get("/operator/margin/?by=provider&q=up").content.decode()
    assert f'href="/operator/margin.csv?by=provider&amp;month={month}&amp;q=up"' in page


def test_the_file_of_the_accounting_check_has_what_the_page_finds(operator: Client) -> None:
    today = datetime.now(UTC).date()
    checked("fair", today, 2, 100, 100, 40, 40, worst="1.1")
    checked("greedy", today, 1, 300, 100, 20, 20, worst="2.5")
    checked("silent", today, 1, 5, 0, 5, 0, worst="1.5")
    # 320 of 120 tokens, and 140 of 140.
    assert [
        (line["name"], line["ratio"], line["farthest"])
        for line in lines(operator, "/operator/accounting.csv")
    ] == [
        ("greedy", "2.6667", "2.5000"),
        ("fair", "1.0000", "1.1000"),
        ("silent", "", "1.5000"),
    ]
    (day,) = lines(operator, "/operator/accounting.csv?deployment=greedy")
    assert list(day.values()) == [str(today), "1", "300", "100", "20", "20", "2.6667", "2.5000"]
    page = operator.get("/operator/accounting/?q=fai").content.decode()
    assert 'href="/operator/accounting.csv?q=fai"' in page


def test_the_file_of_differences_has_those_that_the_search_finds(operator: Client) -> None:
    found = [
        {"organization": "acme", "what": "wallet", "where": "account 1", "expected": "1.00", "found": "0.50"},
        {"organization": "", "what": "journal", "where": "a line", "expected": "an event", "found": "=none"},
    ]
    report = ReconcileReport.objects.create(balanced=False, differences=found)
    # What a spreadsheet would take for a formula is text.
    assert lines(operator, f"/operator/reconcile/{report.pk}.csv") == [
        found[0],
        {**found[1], "found": "'=none"},
    ]
    assert lines(operator, f"/operator/reconcile/{report.pk}.csv?q=WALL") == [found[0]]
    page = operator.get(f"/operator/reconcile/{report.pk}/?q=acme").content.decode()
    assert f'href="/operator/reconcile/{report.pk}.csv?q=acme"' in page
