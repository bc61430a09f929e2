"""The monthly partitions of the usage events."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, LiteralString, Protocol

from psycopg import sql


class Cursor(Protocol):
    """What is used of a cursor: Django's and psycopg's both fit."""

    def execute(self, query: Any, params: Any = None, /) -> Any: ...

    def fetchone(self) -> Any: ...


# Any number will do; it only keeps two processes from making the same month at once.
_LOCK = 7_305_001
_EXISTS: LiteralString = "SELECT to_regclass(%s) IS NOT NULL"
# Attached rather than made as a partition: attaching does not lock out readers and writers.
_CREATE: LiteralString = "CREATE TABLE {name} (LIKE billing_usageevent INCLUDING ALL)"
_ATTACH: LiteralString = (
    "ALTER TABLE billing_usageevent ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})"
)
_GUARD: LiteralString = """
CREATE TRIGGER usage_kept BEFORE TRUNCATE ON {name}
FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change()
"""


def first_of(month: date) -> date:
    """The first day of the month that ``month`` (a date, or an aware time) lies in, by UTC."""
    if isinstance(month, datetime):
        month = month.astimezone(UTC).date()
    return month.replace(day=1)


def after(month: date) -> date:
    """The first day of the next month."""
    first = first_of(month)
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def name_of(month: date) -> str:
    """The table that holds a month's events."""
    return f"billing_usageevent_{first_of(month):%Y_%m}"


def ensure(cursor: Cursor, month: date) -> bool:
    """Make the partition of ``month`` unless it is there; True if it was made. To be called in a
    transaction, which may go on to insert into it."""
    name = name_of(month)
    cursor.execute(_EXISTS, [name])
    if cursor.fetchone()[0]:
        return False
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    cursor.execute(_EXISTS, [name])
    if cursor.fetchone()[0]:
        return False
    parts = {
        "name": sql.Identifier(name),
        "start": sql.Literal(f"{first_of(month)} 00:00:00+00"),
        "end": sql.Literal(f"{after(month)} 00:00:00+00"),
    }
    # Only the owner of the table may do this, whatever role the connection works as.
    cursor.execute("SELECT current_user")
    role = sql.Identifier(cursor.fetchone()[0])
    cursor.execute("SET LOCAL ROLE NONE")
    for statement in (_CREATE, _ATTACH, _GUARD):
        cursor.execute(sql.SQL(statement).format(**parts))
    cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
    return True
