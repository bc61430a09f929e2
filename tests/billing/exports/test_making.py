"""Exports in the background: whole or not there, equal to the books, and taken up again after a crash."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django_scopes import scopes_disabled
from pytest_django import Settings

from billing import ledger, rollups
from billing.exports import making
from billing.exports.files import draft_of, file_of, sidecar_of
from billing.models import DirtyBucket, Export
from billing.services.exports import MOST_WAITING, TooMany, remove_export, request_export
from billing.usage_export import export as whole_export
from tenants.models import AuditEntry, User
from tests.billing.made_usage import Tenant, event, make_tenant, utc

pytestmark = pytest.mark.django_db

MARCH = (date(2026, 3, 1), date(2026, 3, 31))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.EXPORT_DIR = tmp_path / "exports"
    return tmp_path / "exports"


@pytest.fixture
def acme() -> Tenant:
    """With three requests, summed and posted: 1, 2 and 0.000000000004 dollars."""
    tenant = make_tenant("acme")
    used(tenant.backend, "2026-03-02T10:00", "req-1", "1")
    used(tenant.banner, "2026-03-02T11:00", "req-2", "2")
    used(tenant.batch, "2026-03-20T11:00", "req-3", "0.000000000004")
    post()
    return tenant


def used(key: Any, at: str, name: str, charge: str) -> None:
    event(key, at, name, charge)
    with scopes_disabled():
        DirtyBucket.objects.create(
            organization=key.organization, hour=utc(at).replace(minute=0, second=0, microsecond=0)
        )


def post() -> None:
    with scopes_disabled():
        rollups.refresh()
        ledger.post_usage()


def asked(tenant: Tenant, **changes: Any) -> Export:
    values: dict[str, Any] = {"what": "usage", "format": "csv", "first": MARCH[0], "last": MARCH[1]}
    return request_export(acting_user=None, organization=tenant.organization, **(values | changes))


def now(export: Export) -> Export:
    with scopes_disabled():
        return Export.objects.select_related("organization").get(pk=export.pk)


def change(export: Export, **values: Any) -> None:
    with scopes_disabled():
        Export.objects.filter(pk=export.pk).update(**values)


def test_the_file_is_the_usage_and_its_sum_is_the_ledgers(acme: Tenant) -> None:
    export = asked(acme)
    assert making.make_due() == 1
    made = now(export)
    content = file_of(made.reference, "csv").read_bytes()
    expected = whole_export(
        acme.organization, utc("2026-02-28T23:00"), utc("2026-03-31T22:00"), "csv", provider_cost=False
    )
    assert content == b"".join(expected)
    assert (made.state, made.rows, made.requests, made.share) == ("done", 3, 3, 100)
    assert (made.charge, made.control, made.control_of) == (
        Decimal("3.000000000004"), Decimal("3.000000000004"), "ledger",
    )  # fmt: skip
    assert made.agrees
    assert made.note == ""


def test_the_checksum_is_that_of_the_file(acme: Tenant) -> None:
    export = asked(acme, format="xlsx")
    making.make_due()
    made = now(export)
    content = file_of(made.reference, "xlsx").read_bytes()
    assert (made.sha256, made.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert sidecar_of(made.reference).read_text() == (
        f"{made.sha256}  usage-acme-2026-03-01-2026-03-31.xlsx\n"
    )


@pytest.mark.parametrize(("what", "by"), [("focus", ""), ("report", "team"), ("usage", "")])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "xlsx"])
def test_every_kind_adds_up_to_the_ledger(acme: Tenant, what: str, by: str, format_: str) -> None:
    export = asked(acme, what=what, by=by, format=format_)
    making.make_due()
    made = now(export)
    assert (made.state, made.requests, made.control) == ("done", 3, Decimal("3.000000000004"))
    assert made.agrees


def test_a_filtered_file_is_compared_with_the_report(acme: Tenant) -> None:
    export = asked(acme, filters={"team_id": acme.ads.pk})
    making.make_due()
    made = now(export)
    assert (made.charge, made.control, made.control_of) == (Decimal(2), Decimal(2), "report")
    rows = list(csv.DictReader(io.StringIO(file_of(made.reference, "csv").read_text(), newline="")))
    assert [row["request_id"] for row in rows] == ["req-2"]


def test_keys_without_owner_can_be_chosen(acme: Tenant) -> None:
    export = asked(acme, filters={"member_id": None})
    making.make_due()
    # `batch` and `banner` are nobody's.
    assert (now(export).requests, now(export).agrees) == (2, True)


def test_in_a_zone_of_half_hours_the_report_is_the_measure(acme: Tenant) -> None:
    acme.organization.time_zone = "Asia/Kolkata"
    acme.organization.save(update_fields=["time_zone"])
    export = asked(acme)
    making.make_due()
    assert (now(export).control_of, now(export).agrees) == ("report", True)


def test_what_is_not_posted_yet_is_said(acme: Tenant) -> None:
    used(acme.backend, "2026-03-03T10:00", "req-4", "5")
    export = asked(acme)
    making.make_due()
    made = now(export)
    assert (made.charge, made.control) == (Decimal("8.000000000004"), Decimal("3.000000000004"))
    assert made.note == "Some hours were still being added up. Export them again in a minute."


def test_another_tenants_usage_is_never_in(acme: Tenant) -> None:
    used(make_tenant("globex").backend, "2026-03-02T10:00", "theirs", "7")
    post()
    export = asked(acme)
    making.make_due()
    assert (now(export).requests, now(export).agrees) == (3, True)


@contextmanager
def another_session() -> Iterator[psycopg.Connection[Any]]:
    parameters = dict(connection.get_connection_params())
    names = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{name: parameters[name] for name in names if name in parameters}) as other:
        yield other
        # As PostgreSQL does when a session ends, but at once.
        other.execute("SELECT pg_advisory_unlock_all()")


def test_what_another_worker_makes_is_left_to_it_and_taken_up_when_it_dies(acme: Tenant) -> None:
    export = asked(acme)
    change(export, state="running", attempts=1)
    with another_session() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"billing.export:{export.pk}"])
        assert making.make_due() == 0
        assert now(export).state == "running"
    assert making.make_due() == 1
    assert (now(export).state, now(export).attempts, now(export).agrees) == ("done", 2, True)


def test_no_more_are_made_at_once_than_the_setting_says(acme: Tenant) -> None:
    asked(acme)
    with another_session() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('billing.exports:0', 0))")
        assert making.make_due() == 0
    assert making.make_due() == 1


def test_after_three_attempts_it_is_given_up(acme: Tenant) -> None:
    export = asked(acme)
    change(export, state="running", attempts=3)
    assert making.make_due() == 0
    assert (now(export).state, now(export).problem) == ("failed", "It failed several times.")


def test_a_full_disk_is_tried_again_and_leaves_no_half_of_a_file(
    acme: Tenant, folder: Path, settings: Settings
) -> None:
    # A file stands where the directory should be.
    folder.write_text("")
    export = asked(acme)
    assert making.make_due() == 0
    assert now(export).state == "running"
    folder.unlink()
    assert making.make_due() == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{export.reference}.csv",
        f"{export.reference}.sha256",
    ]


def test_one_that_is_cancelled_while_it_is_made_leaves_nothing(acme: Tenant, folder: Path) -> None:
    asked(acme)
    with connection.cursor() as cursor:
        # Somebody removes it as soon as it is begun.
        cursor.execute("""
            CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN DELETE FROM billing_export WHERE id = NEW.id; RETURN NULL; END $$;
            CREATE TRIGGER cancel AFTER UPDATE ON billing_export FOR EACH ROW EXECUTE FUNCTION cancel()
        """)
    assert making.make_due() == 0
    assert list(folder.iterdir()) == []


def test_removing_takes_the_file_along(
    acme: Tenant, folder: Path, django_capture_on_commit_callbacks: Any
) -> None:
    export = asked(acme)
    making.make_due()
    with django_capture_on_commit_callbacks(execute=True):
        remove_export(acting_user=User.objects.create_user("x@acme.example"), export=now(export))
    assert list(folder.iterdir()) == []
    with scopes_disabled():
        assert list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True)) == [
            "requested",
            "removed",
        ]


def test_what_expired_is_removed_and_the_rest_stays(acme: Tenant, folder: Path) -> None:
    old, new = asked(acme), asked(acme)
    making.make_due()
    change(old, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert making.remove_expired() == 1
    with scopes_disabled():
        assert list(Export.objects.values_list("pk", flat=True)) == [new.pk]
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {new.reference}


def test_an_organization_waits_for_so_many_files_at_most(acme: Tenant) -> None:
    for _ in range(MOST_WAITING):
        asked(acme)
    with pytest.raises(TooMany):
        asked(acme)
    asked(make_tenant("globex"))


def test_a_draft_is_not_the_file(acme: Tenant) -> None:
    export = asked(acme)
    making.make_due()
    assert not draft_of(export.reference).exists()
