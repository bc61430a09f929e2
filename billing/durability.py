"""A commit that was confirmed must survive PostgreSQL's own crash, whatever the server's default is.

With ``synchronous_commit`` off a killed server forgets the last moments: events whose journal lines the
shipper took for shipped, and grants that a worker already spends. Settings stricter than ``on`` stay.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import AsyncConnection

# For the session of the connection that executes it.
INSIST: LiteralString = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)


async def insist(connection: AsyncConnection[Any]) -> None:
    """Make the commits of ``connection``, which is in autocommit, durable. For a pool's ``configure``."""
    await connection.execute(INSIST)
