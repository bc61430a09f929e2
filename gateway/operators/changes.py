"""A change of where requests go, tried before it is made: what differs, and how candidates move.

The change itself is made by ``routing.services`` in a transaction that is taken back, so that a preview
refuses what saving refuses, and the routing policy is asked with what workers would read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2s

from django import forms
from django.db import connection, transaction

from gateway.console.why import MOST_TOKENS, NEEDS, reasons
from gateway.explanation import Caller, Picture, explain, picture
from routing.models import region_validator
from routing.policy import Need
from routing.table import RoutingTable, read_table
from tenants.models import Plan

# Model groups whose candidates a preview shows; the others are counted.
SHOWN = 20


class Example(forms.Form):
    """The request by which a preview tells how candidates move."""

    tokens = forms.IntegerField(label="Input tokens", min_value=0, max_value=MOST_TOKENS, initial=1000)
    output = forms.IntegerField(label="Output tokens", min_value=0, max_value=MOST_TOKENS, initial=500)
    needs = forms.MultipleChoiceField(choices=NEEDS, required=False, widget=forms.CheckboxSelectMultiple)
    plan = forms.ModelChoiceField(
        Plan.objects.order_by("name"), required=False, empty_label="none", label="Plan of the caller"
    )
    region = forms.CharField(
        max_length=40, validators=[region_validator], required=False, label="Must stay in region"
    )

    def need(self) -> Need:
        """What the request needs, once the form is valid."""
        data = self.cleaned_data
        return Need(
            data["tokens"],
            data["output"],
            frozenset(data["needs"]),
            data["plan"].name if data["plan"] is not None else None,
            regions=frozenset({data["region"]}) if data["region"] else None,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """``describe`` locks the row and tells its values as people read them, by name; ``make`` changes it by
    the services, whose refusals are ValueErrors."""

    describe: Callable[[], Mapping[str, str]]
    make: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment before and after, as ``1. priority 1`` or why it is left out; empty: not looked at."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of the candidates of one model group; ``by`` is the group to which its rules lead."""

    group: str
    by: tuple[str, str]
    candidates: list[Candidate]

    @property
    def moves(self) -> bool:
        """Whether anything is different afterwards."""
        return self.by[0] != self.by[1] or any(each.before != each.after for each in self.candidates)


@dataclass(frozen=True, slots=True)
class Preview:
    """A change that was not made. ``token`` stands for exactly these differences."""

    differences: list[tuple[str, str, str]]
    effects: list[Effect]
    # Model groups that change too and are not shown.
    more: int
    redis_away: bool
    token: str


def _token(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    return blake2s(repr((sorted(before.items()), sorted(after.items()))).encode(), digest_size=16).hexdigest()


def preview(change: Change, need: Need, own: Callable[[RoutingTable], set[str]]) -> Preview:
    """What ``change`` would do. ``own`` names the model groups that are shown even if nothing moves in them.

    Raises what the services raise.
    """
    seen = picture()
    with transaction.atomic():
        before = change.describe()
        change.make()
        after = change.describe()
        table = read_table(connection.connection)
        transaction.set_rollback(True)
    shown, more = _effects(seen, replace(seen, table=table), need, own(table))
    return Preview(
        [(name, value, after[name]) for name, value in before.items() if value != after[name]],
        shown,
        more,
        seen.notices is None,
        _token(before, after),
    )


def save(change: Change, token: str) -> bool:
    """Make ``change`` if it is the one that was previewed as ``token``; whether it was.

    Raises what the services raise.
    """
    with transaction.atomic():
        before = change.describe()
        change.make()
        if _token(before, change.describe()) == token:
            return True
        transaction.set_rollback(True)
    return False


def _effects(seen: Picture, then: Picture, need: Need, own: set[str]) -> tuple[list[Effect], int]:
    found = []
    for name in sorted(then.table.groups, key=lambda name: (name not in own, name)):
        ways = [_candidates(each, name, need) for each in (seen, then)]
        (by, before), (by_then, after) = ways
        effect = Effect(
            name,
            (by, by_then),
            [Candidate(each, before.get(each, ""), after.get(each, "")) for each in {**after, **before}],
        )
        if effect.moves or name in own:
            found.append(effect)
    return found[:SHOWN], len(found[SHOWN:])


def _candidates(seen: Picture, name: str, need: Need) -> tuple[str, dict[str, str]]:
    """The group that serves requests to ``name``, and its deployments in order with what becomes of each."""
    explanation = explain(seen, Caller(0), seen.table.groups[name], need)
    serving = explanation.route.group
    why = reasons(explanation, {})
    found: dict[str, str] = {}
    for verdict in explanation.verdicts:
        by = why.get(verdict.deployment.id, "") if verdict.group == serving.name else f"by {verdict.group}"
        words = f"{verdict.place}. {by}" if verdict.place else f"left out: {verdict.removed}"
        found.setdefault(verdict.deployment.name, f"{words}; {verdict.resting}" if verdict.resting else words)
    return serving.name, found
