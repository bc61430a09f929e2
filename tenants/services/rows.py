"""Rows as the write functions check, change and save them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models


class InvalidRow(ValueError):
    """A value that a field does not take; the message names the field."""


def check(row: models.Model) -> None:
    """Raise ``InvalidRow`` unless every field's value is of its kind, length and choices."""
    foreign_keys = [field.name for field in row._meta.fields if field.remote_field is not None]  # noqa: SLF001 - a public name of Django
    try:
        row.clean_fields(exclude=foreign_keys)
    except ValidationError as error:
        problems = [f"{name}: {' '.join(messages)}" for name, messages in error.message_dict.items()]
        raise InvalidRow("; ".join(problems)) from None


def changed(row: models.Model, wanted: dict[str, Any]) -> dict[str, Any]:
    """The part of ``wanted`` (values by field name) in which ``row`` differs.

    Raises ``FieldDoesNotExist`` for a name that is no field of the row.
    """
    differing = {}
    for name, value in wanted.items():
        row._meta.get_field(name)  # noqa: SLF001 - likewise
        if getattr(row, name) != value:
            differing[name] = value
    return differing


def assign(row: models.Model, changes: dict[str, Any]) -> dict[str, Any]:
    """Set and save exactly the fields in ``changes``; old and new values for the audit entry.

    Raises ``InvalidRow``, and then leaves the database as it is.
    """
    before = {name: getattr(row, name) for name in changes}
    for name, value in changes.items():
        setattr(row, name, value)
    try:
        check(row)
    except InvalidRow:
        for name, value in before.items():
            setattr(row, name, value)
        raise
    row.save(update_fields=list(changes))
    return {name: {"from": before[name], "to": value} for name, value in changes.items()}
