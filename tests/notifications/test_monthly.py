"""Files that come every month: asked for once when a month is over, mailed as a link to those who may."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django_scopes import scopes_disabled

from billing import ledger, rollups
from billing.exports import monthly as due
from billing.exports.making import make_due
from billing.models import DirtyBucket, Export, Schedule, ScheduleRun
from billing.services.exports import remove_export, request_export
from billing.services.schedules import BadSchedule, remove_schedule, set_schedule
from billing.statements import making
from gateway.notifications.monthly import go_on
from tenants.models import AuditEntry, Membership
from tests.billing.made_usage import event, utc
from tests.cast import Cast, make_cast
from tests.console.conftest import SignIn, sign_in  # noqa: F401  # a fixture

pytestmark = pytest.mark.django_db
AWAY = "The mail server did not take it (ConnectionRefusedError)."
# October of Berlin ends on the 31st at 23:00 UTC.
OVER = utc("2026-10-31T23:00")
LATER = OVER + timedelta(hours=6)


@pytest.fixture
def acme(settings: Any, tmp_path: Path) -> Cast:
    """Acme of Berlin, which spent 12 dollars in October and 5 outside of it."""
    settings.EXPORT_DIR = tmp_path
    settings.PUBLIC_URL = "https://weir.example"
    cast = make_cast("acme", time_zone="Europe/Berlin")
    # 22:00 UTC is midnight of the first in summer, 23:00 UTC of the next first in winter.
    for hour, charge in (
        ("2026-09-30T21:00", "2"),
        ("2026-09-30T22:00", "4"),
        ("2026-10-31T22:00", "8"),
        ("2026-10-31T23:00", "3"),
    ):
        event(cast.search_key, hour, f"req-{hour}", charge)
        with scopes_disabled():
            DirtyBucket.objects.create(organization=cast.organization, hour=utc(hour))
    while rollups.refresh():
        pass
    while ledger.post_usage():
        pass
    return cast


def wanted(acme: Cast, *people: Membership, since: str = "2026-10-10", **file: str) -> Schedule:
    """A schedule made at ``since``; by default a report by team as CSV for Fay."""
    schedule = set_schedule(
        acting_user=acme.ann.user,
        organization=acme.organization,
        recipients=people or [acme.fay],
        **{"what": "report", "by": "team", "format": "csv", **file},
    )
    with scopes_disabled():
        Schedule.objects.filter(pk=schedule.pk).update(created_at=utc(since))
    return schedule


def runs() -> list[tuple[date, str, str]]:
    with scopes_disabled():
        return list(ScheduleRun.objects.order_by("pk").values_list("month", "state", "problem"))


def waiting(now: datetime) -> list[int]:
    with scopes_disabled():
        return due.waiting(now)


def sent(acme: Cast, now: datetime = LATER) -> None:
    """Look, make the file, look again."""
    go_on(acme.organization, now)
    make_due()
    go_on(acme.organization, now + timedelta(minutes=1))


def test_the_month_of_the_organization_comes_as_a_link_with_its_sum(acme: Cast) -> None:
    wanted(acme)
    sent(acme)
    (message,) = mail.outbox
    with scopes_disabled():
        export = Export.objects.get()
    assert (export.first, export.last, export.charge) == (date(2026, 10, 1), date(2026, 10, 31), Decimal(12))
    assert message.bcc == ["fay@acme.example"]
    assert message.to == []
    assert message.subject == "Report by team, CSV of Acme Ltd for October 2026"
    body = str(message.body)
    assert f"https://weir.example/o/acme/exports/{export.reference}/file" in body
    assert "Sum: 12.00 US dollars, equal to the ledger." in body
    assert export.sha256 in body
    assert message.attachments == []
    assert runs() == [(date(2026, 10, 1), "sent", "")]


def test_looking_again_mails_nothing_more(acme: Cast) -> None:
    wanted(acme)
    for hours in range(4):
        sent(acme, LATER + timedelta(hours=hours))
    assert len(mail.outbox) == 1
    with scopes_disabled():
        assert Export.objects.count() == 1
    assert waiting(LATER + timedelta(days=1)) == []


def test_nothing_is_asked_for_before_the_last_usage_is_in(acme: Cast) -> None:
    wanted(acme)
    assert waiting(LATER - timedelta(seconds=1)) == []
    go_on(acme.organization, LATER - timedelta(seconds=1))
    assert runs() == []
    assert waiting(LATER) == [acme.organization.pk]


def test_a_month_that_was_over_when_it_was_chosen_does_not_come(acme: Cast) -> None:
    wanted(acme, since="2026-11-01")
    sent(acme)
    assert runs() == []
    assert mail.outbox == []
    # November's end in Berlin.
    sent(acme, utc("2026-11-30T23:00") + timedelta(hours=6))
    assert runs() == [(date(2026, 11, 1), "sent", "")]


def test_whoever_may_no_longer_export_gets_nothing(acme: Cast) -> None:
    wanted(acme, acme.fay, acme.adam)
    with scopes_disabled():
        Membership.objects.filter(pk=acme.adam.pk).update(role="viewer")
    sent(acme)
    assert [message.bcc for message in mail.outbox] == [["fay@acme.example"]]


def test_where_nobody_may_any_more_the_run_says_so_and_tries_again(acme: Cast) -> None:
    wanted(acme)
    with scopes_disabled():
        Membership.objects.filter(pk=acme.fay.pk).update(role="viewer")
    sent(acme)
    assert runs() == [(date(2026, 10, 1), "mailing", "None of the people chosen may export any more.")]
    with scopes_disabled():
        Membership.objects.filter(pk=acme.fay.pk).update(role="finance")
    # Not before its pause is over.
    go_on(acme.organization, LATER + timedelta(minutes=1, seconds=29))
    assert mail.outbox == []
    go_on(acme.organization, LATER + timedelta(minutes=1, seconds=30))
    assert len(mail.outbox) == 1


def test_a_mail_server_that_is_away_is_tried_and_then_given_up(acme: Cast, settings: Any) -> None:
    wanted(acme)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    # A port on which nothing listens.
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    sent(acme)
    assert runs() == [(date(2026, 10, 1), "mailing", AWAY)]
    for _ in range(5):
        with scopes_disabled():
            run = ScheduleRun.objects.get()
        go_on(acme.organization, run.next_at)
    assert runs() == [(date(2026, 10, 1), "failed", AWAY)]


def test_a_file_that_was_removed_is_not_mailed(acme: Cast) -> None:
    wanted(acme)
    go_on(acme.organization, LATER)
    with scopes_disabled():
        remove_export(acting_user=acme.ann.user, export=Export.objects.get())
    go_on(acme.organization, LATER)
    assert runs() == [(date(2026, 10, 1), "failed", "The file was removed before it was sent.")]


def test_a_file_that_fails_is_shown_as_failed(acme: Cast) -> None:
    wanted(acme)
    go_on(acme.organization, LATER)
    with scopes_disabled():
        Export.objects.update(state="failed", problem="It failed several times.")
    go_on(acme.organization, LATER)
    assert runs() == [(date(2026, 10, 1), "failed", "It failed several times.")]


def test_too_many_files_at_once_wait_for_the_next_look(acme: Cast) -> None:
    for _ in range(5):
        request_export(
            acting_user=None,
            organization=acme.organization,
            what="usage",
            format="csv",
            first=date(2026, 10, 1),
            last=date(2026, 10, 1),
        )
    wanted(acme)
    go_on(acme.organization, LATER)
    assert runs() == []
    make_due()
    go_on(acme.organization, LATER)
    assert runs() == [(date(2026, 10, 1), "making", "")]
    sent(acme, LATER + timedelta(minutes=2))
    assert runs() == [(date(2026, 10, 1), "sent", "")]


def test_a_statement_is_waited_for_and_linked_with_its_balances(acme: Cast) -> None:
    wanted(acme, what="statement", by="", format="pdf")
    go_on(acme.organization, LATER)
    assert runs() == [(date(2026, 10, 1), "making", "")]
    made = making.make_through(acme.organization, LATER)
    go_on(acme.organization, LATER)
    (message,) = mail.outbox
    assert f"https://weir.example/o/acme/statements/{made[-1].number}.pdf" in str(message.body)
    assert "Closing balance: -14.00 US dollars" in str(message.body)
    assert runs() == [(date(2026, 10, 1), "sent", "")]


def test_a_month_without_a_statement_ends_without_a_mail(acme: Cast) -> None:
    wanted(acme, what="statement", by="", format="pdf")
    # Nobody makes one here, as where nothing was posted.
    go_on(acme.organization, LATER)
    with scopes_disabled():
        ScheduleRun.objects.update(began_at=LATER)
    go_on(acme.organization, LATER + timedelta(days=2, seconds=-1))
    assert [state for _, state, _ in runs()] == ["making"]
    go_on(acme.organization, LATER + timedelta(days=2))
    assert [state for _, state, _ in runs()] == ["nothing"]
    assert mail.outbox == []


def test_a_suspended_organization_gets_nothing(acme: Cast) -> None:
    wanted(acme)
    acme.organization.suspended_at = OVER
    acme.organization.save(update_fields=["suspended_at"])
    assert waiting(LATER) == []


def test_a_removed_schedule_sends_no_more(acme: Cast) -> None:
    schedule = wanted(acme)
    go_on(acme.organization, LATER)
    remove_schedule(acting_user=acme.ann.user, schedule=schedule)
    make_due()
    go_on(acme.organization, LATER)
    assert mail.outbox == []
    assert runs() == []


def test_the_same_file_again_changes_who_gets_it(acme: Cast) -> None:
    first = wanted(acme)
    assert wanted(acme, acme.ann, acme.adam) == first
    with scopes_disabled():
        people = set(first.recipients.values_list("membership__user__email", flat=True))
        entry = AuditEntry.objects.filter(target_type="schedule").latest("pk")
    assert people == {"ann@acme.example", "adam@acme.example"}
    assert (entry.verb, entry.detail["to"]) == ("changed", ["adam@acme.example", "ann@acme.example"])


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ({"what": "report", "by": "team", "format": "pdf"}, "CSV, XLSX or JSONL"),
        ({"what": "statement", "by": "", "format": "xlsx"}, "PDF or CSV"),
        ({"what": "report", "by": "", "format": "csv"}, "divided"),
        ({"what": "report", "by": "deployment", "format": "csv"}, "divided"),
        ({"what": "all", "by": "", "format": "csv"}, "what"),
    ],
)
def test_what_cannot_be_made_is_refused(acme: Cast, file: dict[str, str], word: str) -> None:
    with pytest.raises(BadSchedule, match=word):
        wanted(acme, **file)
    with scopes_disabled():
        assert not Schedule.objects.exists()


def test_a_person_who_may_not_export_cannot_be_chosen(acme: Cast) -> None:
    with pytest.raises(BadSchedule, match=r"bob@acme\.example may not export"):
        wanted(acme, acme.bob)


def test_another_tenants_member_cannot_be_chosen(acme: Cast, sign_in: SignIn) -> None:  # noqa: F811
    other = make_cast("other")
    response = sign_in(acme.fay).post(
        "/o/acme/exports/monthly/", {"what": "usage", "format": "csv", "to": str(other.fay.pk)}
    )
    assert response.status_code == 422
    assert b"Choose at least one person" in response.content


def test_finance_chooses_a_file_and_sees_what_became_of_it(acme: Cast, sign_in: SignIn) -> None:  # noqa: F811
    client = sign_in(acme.fay)
    response = client.post(
        "/o/acme/exports/monthly/",
        {"what": "report", "by": "team", "format": "csv", "to": [str(acme.fay.pk), str(acme.ann.pk)]},
    )
    assert response["Location"] == "/o/acme/exports/#monthly"
    page = client.get("/o/acme/exports/").content.decode()
    assert "Report by team, CSV" in page
    assert "None yet" in page
    with scopes_disabled():
        Schedule.objects.update(created_at=utc("2026-10-10"))
    sent(acme)
    page = client.get("/o/acme/exports/").content.decode()
    assert "October 2026" in page
    assert '<span class="badge good">Sent</span>' in page


def test_the_link_asks_to_sign_in_and_then_gives_the_file(acme: Cast, sign_in: SignIn) -> None:  # noqa: F811
    wanted(acme)
    sent(acme)
    with scopes_disabled():
        # The file was made today; the test's months are its own.
        path = f"/o/acme/exports/{Export.objects.get().reference}/file"
    assert Client().get(path)["Location"].startswith("/accounts/login/")
    response = sign_in(acme.fay).get(path)
    assert (response.status_code, response["Content-Type"]) == (200, "text/csv; charset=utf-8")
