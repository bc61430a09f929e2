"""The database role that Weir's processes work as: it may add to the books and cannot change them.

The login of DATABASE_URL owns the tables and migrates; with DATABASE_ROLE set, every other connection
begins as this role. The guards by trigger stand beside it: either would do.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import InternalError, ProgrammingError, connections, transaction
from psycopg import sql

logger = logging.getLogger(__name__)

ROLE = "weir_app"
# Rows that are only ever added.
ADDED_ONLY = (
    "billing_ledgertransaction",
    "billing_ledgerentry",
    "billing_grant",
    "billing_statement",
    "billing_statementline",
    "billing_statementposting",
    "billing_usageevent",
)
# What of an event can be emptied, and by a trigger no more than that (``billing.retention``).
_REMOVE_DETAILS = (
    "GRANT UPDATE (attempts, error_code, first_token_ms, tags, details_removed_at) "
    "ON billing_usageevent TO {role}"
)
# Written by a trigger alone, which runs as the owner.
READ_ONLY = ("billing_accountbalance",)
_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)"
_MEMBER = "SELECT pg_has_role(current_user, %s, 'MEMBER')"
_GRANT = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
)
_PARTITIONS = (
    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'billing_usageevent'::regclass"
)


def grant(using: str = "default", **_: Any) -> None:
    """Make the role where it is missing, and give it its rights on every table there is.

    Runs after each ``migrate``, as the owner. Where the login may not make roles and nobody made this
    one, it says so and the role stays unused.
    """
    with connections[using].cursor() as cursor:
        try:
            with transaction.atomic(using):
                _make(cursor)
        except (ProgrammingError, InternalError) as error:
            logger.warning("The role %s could not be made (%s). See docs/operations.md.", ROLE, error)
            return
        role = sql.Identifier(ROLE)
        with transaction.atomic(using):
            for statement in _GRANT:
                cursor.execute(sql.SQL(statement).format(role=role))
            cursor.execute(_PARTITIONS)
            # Reached through their parent only.
            for (partition,) in cursor.fetchall():
                cursor.execute(
                    sql.SQL("REVOKE ALL ON {} FROM {}").format(sql.Identifier(*partition.split(".")), role)
                )
            for tables, rights in ((ADDED_ONLY, "UPDATE, DELETE"), (READ_ONLY, "INSERT, UPDATE, DELETE")):
                for table in tables:
                    cursor.execute(
                        sql.SQL(f"REVOKE {rights} ON {{}} FROM {{}}").format(sql.Identifier(table), role)
                    )
            cursor.execute(sql.SQL(_REMOVE_DETAILS).format(role=role))


def _make(cursor: Any) -> None:
    cursor.execute(_EXISTS, [ROLE])
    if not cursor.fetchone()[0]:
        cursor.execute(
            # Another database of this server may be migrated at the same time.
            "DO $$ BEGIN CREATE ROLE weir_app NOLOGIN; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    cursor.execute(_MEMBER, [ROLE])
    if not cursor.fetchone()[0]:
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(ROLE)))
