"""Never over: crowds spend a limit to its end, and the sum charged may not pass it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal

from django.db import connection

from billing.money import plain
from gateway.drills import books, callers, payers
from gateway.drills.ground import DrillError, Ground, wait_until
from gateway.drills.payers import LIMIT, Payer
from gateway.drills.verdict import Verdict

# Least share of the limit that must have been usable.
UTILISATION = Decimal("0.97")
# Longer than a worker keeps money it does not need (docs/accounting.md).
PATIENCE_SECONDS = 6.0
SHIP_SECONDS = 60.0
# Tokens of each of the eight first requests: three fit into the limit, a fourth does not.
FIRST_BOUND = 15_000

SCENARIOS: dict[str, Callable[[], Payer]] = {
    "key budget": payers.key_budget,
    "team budget, 50 keys": payers.team_budget,
    "new end user, 8 at once": payers.end_user_budget,
    "prepaid wallet": payers.prepaid_wallet,
}


def run(ground: Ground, rounds: int, clients: int, only: str, say: Callable[[str], None]) -> list[Verdict]:
    """Every scenario, ``rounds`` times. Raises DrillError."""
    ground.start_provider()
    payers.make_provider(ground.provider_url)
    ground.start_server()
    ground.start_shipper()
    found = []
    for number in range(1, rounds + 1):
        for name, make in SCENARIOS.items():
            if only in name:
                found.append(_scenario(ground, f"{number} {name}", make(), clients, number))
                say(f"{number} {name}: {found[-1].word}")
    return found


def _scenario(ground: Ground, name: str, payer: Payer, clients: int, seed: int) -> Verdict:
    began = time.monotonic()
    seen = callers.Seen()
    wrong = []
    if payer.end_user:
        seen = asyncio.run(callers.first_eight(ground.url, payer, FIRST_BOUND))
        if seen.charge > LIMIT:
            wrong.append(f"the first eight were charged {plain(seen.charge)}")
        if not seen.statuses["200"]:
            wrong.append(f"none of the first eight was answered: {dict(seen.statuses)}")
    crowd = asyncio.run(callers.spend(ground.url, payer, clients, PATIENCE_SECONDS, seed))
    seen.statuses.update(crowd.statuses)
    seen.charge += crowd.charge
    lasted = time.monotonic() - began
    answered = seen.statuses["200"]

    def shipped() -> bool:
        return _events(payer)[0] >= answered

    if not wait_until(shipped, SHIP_SECONDS):
        raise DrillError(f"Not every event was shipped. {ground.last_words('shipper')}")
    returned = wait_until(lambda: books.reserved() == 0, SHIP_SECONDS)
    count, charge = _events(payer)
    if charge > LIMIT:
        wrong.append(f"charged {plain(charge)}, over the limit of {plain(LIMIT)}")
    if charge < LIMIT * UTILISATION:
        wrong.append(f"only {plain(charge)} of {plain(LIMIT)} could be used")
    if count != answered:
        wrong.append(f"{answered} answers, but {count} events with a charge")
    if charge != seen.charge:
        wrong.append(f"the clients' own sum is {plain(seen.charge)}, the books have {plain(charge)}")
    if not returned:
        wrong.append(f"{plain(books.reserved())} is still reserved")
    odd = {status: number for status, number in seen.statuses.items() if status not in {"200", "429"}}
    if odd:
        wrong.append(f"unexpected answers: {odd}")
    wrong += books.differences()
    return Verdict(
        {
            "round, scenario": name,
            "answered": str(answered),
            "refused": str(seen.statuses["429"]),
            "charged": plain(charge),
            "of limit": f"{charge / LIMIT * 100:.2f}%",
            "seconds": f"{lasted:.1f}",
        },
        wrong,
    )


def _events(payer: Payer) -> tuple[int, Decimal]:
    """How many requests of the payer were charged, and what altogether."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(charge), 0) FROM billing_usageevent"
            " WHERE organization_id = %s AND charge > 0",
            [payer.organization.pk],
        )
        count, charge = cursor.fetchone()
        return count, charge
