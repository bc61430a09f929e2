"""Makes the monthly statement of an organization, and locks it.

A statement accounts for every posting of the ledger that belongs to its month or an earlier one and is
in no statement yet: usage by its hour, everything else by when it was posted. So each posting is in
exactly one statement, and what arrives for a month that is locked is a correction in the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django_scopes import scope

from billing import ledger, rollups
from billing.calendars import period_bounds, zone
from billing.currencies import USD, NoExchangeRate, rate_at
from billing.models import Statement, StatementLine, StatementPosting
from tenants.models import Organization, Team

logger = logging.getLogger(__name__)

# Usage of a month's last minutes is given this long to arrive before the month is locked.
SETTLING = timedelta(hours=6)
_HOLD_ROLLUPS = "SELECT pg_advisory_xact_lock(hashtextextended('billing.rollups:' || %s, 0))"
_UNFINISHED = "SELECT EXISTS (SELECT FROM billing_dirtybucket WHERE organization_id = %s AND hour < %s)"
_OPEN = """
FROM billing_ledgertransaction t
WHERE t.organization_id = %(organization)s AND coalesce(t.usage_hour, t.posted_at) < %(end)s
    AND NOT EXISTS (SELECT FROM billing_statementposting s WHERE s.posting_id = t.id)
"""
_FIRST = f"SELECT min(coalesce(t.usage_hour, t.posted_at)) {_OPEN}"
_POSTINGS = f"""
SELECT t.id, t.kind, t.usage_hour, t.posted_at, t.memo, t.reference, coalesce((
    SELECT -sum(e.amount) FROM billing_ledgerentry e
    WHERE e.transaction_id = t.id AND e.account IN ('wallet', 'grants', 'receivable')
), 0)
{_OPEN} ORDER BY coalesce(t.usage_hour, t.posted_at), t.id
"""  # noqa: S608  # text of ours
# Of the hours from `start` to `end`, what the rollups say less what earlier statements have said.
_USAGE = """
WITH now AS (
    SELECT team_id, model_group, sum(requests) AS requests,
        sum(input_tokens + cached_input_tokens + cache_write_tokens + output_tokens) AS tokens,
        sum(charge) AS charge
    FROM billing_usagerollup
    WHERE organization_id = %(organization)s AND hour < %(end)s
        AND (%(start)s::timestamptz IS NULL OR hour >= %(start)s)
    GROUP BY 1, 2
), said AS (
    SELECT team_id, model_group, sum(requests) AS requests, sum(tokens) AS tokens, -sum(amount) AS charge
    FROM billing_statementline
    WHERE kind = 'usage' AND coalesce(corrects_id, statement_id) = %(statement)s GROUP BY 1, 2
)
SELECT team_id, model_group,
    coalesce(now.requests, 0) - coalesce(said.requests, 0), coalesce(now.tokens, 0) - coalesce(said.tokens, 0),
    coalesce(now.charge, 0) - coalesce(said.charge, 0)
FROM now FULL JOIN said USING (team_id, model_group)
ORDER BY 5 DESC, 1, 2
"""
_NUMBER = """
INSERT INTO billing_statementnumber AS n (month, last) VALUES (%s, 1)
ON CONFLICT (month) DO UPDATE SET last = n.last + 1 RETURNING last
"""


class StatementDiffers(RuntimeError):
    """The lines would not add up to what the ledger says, so no statement was made."""


@dataclass(frozen=True, slots=True)
class Posting:
    """A ledger transaction to be accounted for. ``amount`` is what it did to the balance, in US dollars."""

    id: int
    kind: str
    usage_hour: datetime | None
    posted_at: datetime
    memo: str
    reference: str
    amount: Decimal


def make_due(now: datetime | None = None) -> list[Statement]:
    """Make every statement that is due at ``now`` and not there yet. An organization whose statement
    cannot be made is logged and delays no other."""
    made: list[Statement] = []
    for organization in Organization.objects.order_by("pk"):
        made += make_due_of(organization, now or timezone.now())
    return made


def make_due_of(organization: Organization, now: datetime) -> list[Statement]:
    """``make_due`` of one organization."""
    try:
        return make_through(organization, now)
    except (DatabaseError, StatementDiffers) as error:
        logger.exception("The statement of %s could not be made.", organization.slug, exc_info=error)
        return []


def make_through(organization: Organization, now: datetime) -> list[Statement]:
    """Make the statements of ``organization`` for the months that were over at ``now`` less ``SETTLING``,
    oldest first. A month without postings has none. Raises ``StatementDiffers``."""
    made: list[Statement] = []
    time_zone = organization.time_zone
    end_of_last, _ = period_bounds("month", now - SETTLING, time_zone)
    while True:
        with scope(organization=organization):
            last = Statement.objects.order_by("-ends_at").first()
        if last is not None and last.ends_at >= end_of_last:
            return made
        with connection.cursor() as cursor:
            cursor.execute(_FIRST, {"organization": organization.pk, "end": end_of_last})
            first: datetime | None = cursor.fetchone()[0]
        if first is None:
            return made
        _, end = period_bounds("month", first if last is None else max(first, last.ends_at), time_zone)
        if last is not None and end is not None and _month(end, time_zone) <= last.month:
            # The organization moved west: by its new calendar the month that is locked goes on for hours.
            _, end = period_bounds("month", end, time_zone)
        if end is None or end > end_of_last:
            return made
        statement = make(organization, end)
        if statement is None:
            return made
        made.append(statement)


def _month(end: datetime, time_zone: str) -> date:
    """The first day of the month that ends at ``end``."""
    return (end - timedelta(hours=1)).astimezone(zone(time_zone)).date().replace(day=1)


@transaction.atomic
def make(organization: Organization, end: datetime) -> Statement | None:
    """Make and lock the statement of what happened before ``end``, the end of a month in UTC.

    None if nothing did, or if usage before ``end`` still waits to be summed. Raises ``StatementDiffers``.
    """
    # Nothing is posted or summed meanwhile.
    ledger.lock(organization)
    values: dict[str, Any] = {"organization": organization.pk, "end": end}
    with connection.cursor() as cursor, scope(organization=organization):
        cursor.execute(_HOLD_ROLLUPS, [organization.pk])
        cursor.execute(_UNFINISHED, [organization.pk, end])
        if cursor.fetchone()[0]:
            logger.warning("The statement of %s waits for usage to be summed.", organization.slug)
            return None
        ledger.post_pending(cursor, organization.pk)
        cursor.execute(_POSTINGS, values)
        postings = [Posting(*row) for row in cursor.fetchall()]
        before = list(Statement.objects.order_by("ends_at"))
        if not postings or (before and before[-1].ends_at >= end):
            return None
        opening = before[-1].closing if before else Decimal(0)
        closing = opening + sum((posting.amount for posting in postings), Decimal(0))
        month = _month(end, organization.time_zone)
        starts_at = (
            before[-1].ends_at
            if before
            else period_bounds(
                "month", postings[0].usage_hour or postings[0].posted_at, organization.time_zone
            )[0]
        )
        lines = [*_usage_lines(cursor, organization, before, postings, end), *_other_lines(postings)]
        if opening + sum((line.amount for line in lines), Decimal(0)) != closing:
            raise StatementDiffers(
                f"{organization.slug} {month:%Y-%m}: the hourly sums and the ledger differ; run manage.py reconcile."
            )
        shown_currency, rate = _invoiced_in(organization, end)
        missed = "" if shown_currency == organization.currency else organization.currency
        statement = Statement.objects.create(
            organization=organization,
            number=_next_number(cursor, month),
            month=month,
            starts_at=starts_at,
            ends_at=end,
            time_zone=organization.time_zone,
            issuer=settings.STATEMENT_ISSUER,
            customer=organization.name,
            opening=opening,
            closing=closing,
            shown_currency=shown_currency,
            rate=rate,
            missed_currency=missed,
        )
        for position, line in enumerate(lines, 1):
            line.statement, line.position = statement, position
        StatementLine.objects.bulk_create(lines, batch_size=1000)
        StatementPosting.objects.bulk_create(
            [StatementPosting(statement=statement, posting_id=posting.id) for posting in postings],
            batch_size=1000,
        )
    return statement


def _invoiced_in(organization: Organization, end: datetime) -> tuple[str, Decimal | None]:
    """The currency of a statement that ends at ``end``, and its rate. US dollars where there is no rate."""
    if organization.currency == USD:
        return USD, None
    try:
        return organization.currency, rate_at(organization.currency, end)
    except NoExchangeRate:
        logger.exception("The statement of %s is made in US dollars.", organization.slug)
        return USD, None


def _usage_lines(
    cursor: Any, organization: Organization, before: list[Statement], postings: list[Posting], end: datetime
) -> Iterator[StatementLine]:
    """Usage by team and model group: of this month, then of each locked one that more arrived for."""
    hours = [posting.usage_hour for posting in postings if posting.usage_hour is not None]
    if not hours:
        return
    names = dict(Team.objects.values_list("pk", "name"))
    last_end = before[-1].ends_at if before else None
    periods: list[tuple[datetime | None, datetime, Statement | None]] = [(last_end, end, None)]
    # What is older than the first statement belongs to it.
    periods += [
        (each.starts_at if number else None, each.ends_at, each) for number, each in enumerate(before)
    ]
    for start, stop, statement in periods:
        if not any((start is None or start <= hour) and hour < stop for hour in hours):
            continue
        cursor.execute(
            _USAGE,
            {
                "organization": organization.pk,
                "start": start,
                "end": stop,
                "statement": None if statement is None else statement.pk,
            },
        )
        for team_id, model_group, requests, tokens, charge in cursor.fetchall():
            if charge or tokens:
                yield StatementLine(
                    kind="usage",
                    corrects=statement,
                    team_id=team_id,
                    team=names.get(team_id, f"Removed team {team_id}"),
                    model_group=model_group,
                    requests=requests,
                    tokens=tokens,
                    amount=-charge,
                )


def _other_lines(postings: list[Posting]) -> Iterator[StatementLine]:
    for posting in postings:
        if posting.kind != "usage":
            yield StatementLine(
                kind=posting.kind,
                posted_at=posting.posted_at,
                description=" · ".join(filter(None, (posting.memo, posting.reference))),
                amount=posting.amount,
            )


def _next_number(cursor: Any, month: date) -> str:
    """The next number of ``month``. Its row stays locked until the transaction ends, and a transaction
    that fails gives the number back, so there is no gap."""
    cursor.execute(_NUMBER, [month])
    return f"{settings.STATEMENT_PREFIX}-{month:%Y-%m}-{cursor.fetchone()[0]:04d}"


def bring_rollups_up_to_date() -> None:
    """Sum and post what waits, so that fewer statements have to."""
    rollups.refresh()
    ledger.post_usage()
