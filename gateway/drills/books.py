"""What the books say after a drill: shipped or not, reserved or not, equal or not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from django.db import connection

from billing import reconcile


@dataclass(frozen=True, slots=True)
class Sums:
    """Everything that shipping a line again must not change; money in US dollars."""

    events: int
    charge: Decimal
    cost: Decimal
    spent: Decimal
    held: Decimal
    letters: int


def sums() -> Sums:
    """The sums of the whole database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(charge), 0), coalesce(sum(cost), 0) FROM billing_usageevent"
        )
        events, charge, cost = cursor.fetchone()
        cursor.execute("SELECT coalesce(sum(spent), 0), coalesce(sum(held), 0) FROM billing_budget")
        spent, held = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM billing_deadletter")
        return Sums(events, charge, cost, spent, held, cursor.fetchone()[0])


def reserved() -> Decimal:
    """What budgets and leases still hold, in US dollars."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT coalesce(sum(held), 0) FROM billing_budget)"
            " + (SELECT coalesce(sum(remaining), 0) FROM billing_lease)"
        )
        total: Decimal = cursor.fetchone()[0]
        return total


def at_the_provider(log: Path) -> set[str]:
    """The ids of the requests that the provider wrote down."""
    found = set()
    for line in log.read_bytes().split(b"\n"):
        if line:
            entry = json.loads(line)
            if entry["event"] == "arrive" and entry["request_id"]:
                found.add(entry["request_id"])
    return found


def miscounted(log: Path) -> list[str]:
    """Requests that the provider answered whole at the first attempt and the books have with other tokens.

    Only what was charged by the provider's own report; one sentence each.
    """
    told = {}
    for line in log.read_bytes().split(b"\n"):
        if line:
            entry = json.loads(line)
            if entry["event"] == "end" and entry["end"] == "done":
                told[entry["request_id"]] = entry["prompt_tokens"], entry["completion_tokens"]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id, input_tokens, output_tokens FROM billing_usageevent"
            " WHERE end_reason = 'completed' AND usage_source = 'reported' AND jsonb_array_length(attempts) = 1"
        )
        return [
            f"{request} had {told.get(request)} tokens at the provider, ({given}, {taken}) in the books"
            for request, given, taken in cursor.fetchall()
            if told.get(request) != (given, taken)
        ]


def recorded() -> Counter[str]:
    """How many events each request has."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT request_id, count(*) FROM billing_usageevent GROUP BY request_id")
        return Counter(dict(cursor.fetchall()))


def differences() -> list[str]:
    """What reconciliation finds, one sentence each, rollups and ledger brought up to date first."""
    reconcile.bring_up_to_date()
    comparison = reconcile.compare()
    found = [
        f"{each.organization}: {each.what} ({each.where}): expected {each.expected}, found {each.found}"
        for each in comparison.differences
    ]
    if comparison.waiting:
        found.append(f"{comparison.waiting} hours could not be brought up to date.")
    return found
