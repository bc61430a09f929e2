"""Which usage a page, a download or an API call asks for, read from its query string."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from django.db.models import Q
from django.utils import timezone

from billing.access import Names, local_range
from billing.calendars import zone
from billing.reports import NOBODY
from tenants.models import Organization

MAX_DAYS = 400
FILTERS = ("team", "key", "member", "end_user", "model")


class BadQuery(ValueError):
    """A parameter that cannot be understood; the message names it and is fit to be shown."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Days of the organization's calendar, both included, and filters by name."""

    organization: Organization
    first: date
    last: date
    filters: dict[str, str]
    # The filters as columns of usage rows and the value each must have.
    columns: dict[str, object]
    where: Q
    # Whether figures stand beside those of the period before.
    compare: bool = False

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """The time asked for, in UTC, its end excluded."""
        return local_range(self.organization, self.first, self.last)

    @property
    def before(self) -> UsageQuery:
        """The same of the period before: the month before a month or the same days of it, otherwise as many
        days up to the first."""
        following = self.last + timedelta(days=1)
        if self.first.day == 1 and (self.first.year, self.first.month) == (self.last.year, self.last.month):
            end = self.first - timedelta(days=1)
            first = end.replace(day=1)
            whole = following.day == 1
            last = end if whole else min(end, first + (self.last - self.first))
        else:
            first, last = self.first - (following - self.first), self.first - timedelta(days=1)
        return replace(self, first=first, last=last)

    def within(self, condition: Q) -> UsageQuery:
        """The same, of the usage that ``condition`` allows."""
        return replace(self, where=condition & self.where)

    def parameters(self, **changes: str) -> str:
        """The same as a query string, with some parameters replaced, or left out where empty."""
        values = {"from": self.first.isoformat(), "to": self.last.isoformat(), **self.filters}
        values |= {"compare": "before" if self.compare else "", **changes}
        return urlencode({name: value for name, value in values.items() if value})


def today(organization: Organization) -> date:
    """The date in the organization's time zone."""
    return timezone.now().astimezone(zone(organization.time_zone)).date()


def presets(day: date) -> list[tuple[str, date, date]]:
    """Usual ranges up to ``day``: label, first and last day."""
    month = day.replace(day=1)
    before = month - timedelta(days=1)
    return [
        ("This month", month, day),
        ("Last month", before.replace(day=1), before),
        ("7 days", day - timedelta(days=6), day),
        ("30 days", day - timedelta(days=29), day),
    ]


def _date(parameters: Mapping[str, str], name: str, default: date) -> date:
    text = parameters.get(name, "").strip()
    if not text:
        return default
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise BadQuery(f"{name}: “{text[:40]}” is no date. Write it as 2026-03-31.") from None
    if not datetime(2000, 1, 1, tzinfo=UTC).date() <= found <= datetime(2199, 12, 31, tzinfo=UTC).date():
        raise BadQuery(f"{name}: {found} is out of range.")
    return found


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadQuery(f"{name}: “{text[:40]}” is no id.")
    return int(text)


def _column(name: str, text: str, names: Names) -> tuple[str, object]:
    """The filter ``name`` as a column of usage rows and the value it must have."""
    if name == "team":
        for team_id, slug in names.teams.items():
            if slug == text:
                return "team_id", team_id
        if text.startswith("removed-"):
            return "team_id", _number(name, text.removeprefix("removed-"))
        raise BadQuery(f"team: there is no team “{text[:63]}”.")
    if name == "member":
        return "member_id", None if text == "none" else _number(name, text)
    if name == "key":
        return "key_id", _number(name, text)
    if name == "end_user":
        return "end_user", "" if text == NOBODY else text
    return "model_group", text


def read(
    parameters: Mapping[str, str], organization: Organization, names: Names, *, days: int | None = None
) -> UsageQuery:
    """What ``parameters`` ask for: ``from``, ``to`` (dates) and any of ``FILTERS``.

    Without dates, the last ``days`` days, or this month. Raises ``BadQuery``.
    """
    now = today(organization)
    last = _date(parameters, "to", now)
    first = _date(
        parameters, "from", last.replace(day=1) if days is None else last - timedelta(days=days - 1)
    )
    if last < first:
        raise BadQuery("to: the last day is before the first.")
    if (last - first).days >= MAX_DAYS:
        raise BadQuery(f"from: at most {MAX_DAYS} days at a time.")
    filters: dict[str, str] = {}
    columns: dict[str, object] = {}
    for name in FILTERS:
        text = parameters.get(name, "").replace("\x00", "").strip()
        if text:
            column, value = _column(name, text, names)
            columns[column] = value
            filters[name] = text
    return UsageQuery(
        organization, first, last, filters, columns, Q(**columns), parameters.get("compare") == "before"
    )
