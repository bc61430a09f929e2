"""What one end user spent in a period is read from an index: a new counter begins with it, and a request waits."""

from __future__ import annotations

from typing import Any

from django.db import migrations

COLUMNS = "(organization_id, end_user, started_at) WHERE end_user <> ''"
# Those without one, so that it can be run again after it was broken off.
PARTITIONS = """
SELECT part.inhrelid::regclass::text FROM pg_inherits part
WHERE part.inhparent = 'billing_usageevent'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits child JOIN pg_index found ON found.indexrelid = child.inhrelid
    WHERE child.inhparent = 'usage_by_end_user'::regclass AND found.indrelid = part.inhrelid
) ORDER BY 1
"""


def index(_apps: Any, schema_editor: Any) -> None:
    """An index of the parent, and of each partition while requests go on; a new one has it from the parent."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX IF NOT EXISTS usage_by_end_user ON ONLY billing_usageevent {COLUMNS}")
        cursor.execute(PARTITIONS)
        for (partition,) in cursor.fetchall():
            name = f"{partition}_by_end_user"
            # One that was broken off is there and does not work.
            cursor.execute(f"DROP INDEX IF EXISTS {name}")
            cursor.execute(f"CREATE INDEX CONCURRENTLY {name} ON {partition} {COLUMNS}")
            cursor.execute(f"ALTER INDEX usage_by_end_user ATTACH PARTITION {name}")


def drop(_apps: Any, schema_editor: Any) -> None:
    """Remove it from every partition."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS usage_by_end_user")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0019_rollup_indexes")]
    operations = [migrations.RunPython(index, drop)]
