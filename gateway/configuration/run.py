"""One run over a file: what it changed, what went wrong, and what it named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import models, transaction

from gateway.configuration.changes import Change, FieldChange, Outcome
from gateway.configuration.document import Document
from gateway.configuration.problems import Path, Problem
from gateway.models import AppliedObject
from tenants.services import rows

Result = TypeVar("Result")

# The word for one object of each section.
SINGULAR = {
    "providers": "provider",
    "deployments": "deployment",
    "model_groups": "model group",
    "plans": "plan",
    "organizations": "organization",
    "users": "user",
    "teams": "team",
    "members": "team member",
    "keys": "key",
}


class Run:
    """Collects changes and problems. ``remember``: note what is made, so that a later prune finds it."""

    def __init__(self, document: Document, *, remember: bool = True) -> None:
        self.document = document
        self.outcome = Outcome()
        self.problems: list[Problem] = []
        self.named: set[tuple[str, str]] = set()
        self._remember = remember

    @contextmanager
    def at(self, path: Path) -> Iterator[None]:
        """Do something of which a refusal is a problem at ``path`` and leaves nothing half done."""
        try:
            with transaction.atomic():
                yield
        except ValueError as error:
            self.problems.append(self.document.problem(path, str(error)))

    def attempt(self, path: Path, step: Callable[[], Result]) -> Result | None:
        """What ``step`` returns; None if it was refused, which is a problem at ``path``."""
        with self.at(path):
            return step()
        return None  # type: ignore[unreachable]  # `at` swallows what it notes

    def refuse(self, path: Path, message: str) -> None:
        """Note a problem."""
        self.problems.append(self.document.problem(path, message))

    def name(self, section: str, name: str) -> None:
        """Note that the file names an object."""
        self.named.add((section, name))

    def created(self, section: str, name: str) -> None:
        """Note an object that was made."""
        self.outcome.changes.append(Change("+", SINGULAR[section], name))
        if self._remember:
            AppliedObject.objects.get_or_create(kind=section, name=name)

    def changed(self, section: str, name: str, fields: Iterable[FieldChange]) -> None:
        """Note an object some fields of which became something else; nothing if none did."""
        if fields := tuple(fields):
            self.outcome.changes.append(Change("~", SINGULAR[section], name, fields))

    def removed(self, section: str, name: str, note: str = "") -> None:
        """Note an object that was removed, or what became of it instead."""
        self.outcome.changes.append(Change("-", SINGULAR[section], name, note=note))


def differences(row: models.Model, wanted: dict[str, Any]) -> tuple[dict[str, Any], list[FieldChange]]:
    """The part of ``wanted`` in which ``row`` differs, as values to set and as lines to show."""
    differing = rows.changed(row, wanted)
    return differing, [FieldChange(name, getattr(row, name), value) for name, value in differing.items()]
