"""Indexes for what few of many rows have: failed requests, and the sums of one key or member."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

# The status is in it, so that a search for one status reads no other request of the time.
COLUMNS = "(organization_id, started_at DESC, request_id DESC, status) WHERE status >= 400"
# Those without one, so that it can be run again after it was broken off.
PARTITIONS = """
SELECT part.inhrelid::regclass::text FROM pg_inherits part
WHERE part.inhparent = 'billing_usageevent'::regclass AND NOT EXISTS (
    SELECT FROM pg_inherits child JOIN pg_index found ON found.indexrelid = child.inhrelid
    WHERE child.inhparent = 'usage_failed'::regclass AND found.indrelid = part.inhrelid
) ORDER BY 1
"""


def index(_apps: Any, schema_editor: Any) -> None:
    """An index of the parent, and of each partition while requests go on; a new one has it from the parent."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX IF NOT EXISTS usage_failed ON ONLY billing_usageevent {COLUMNS}")
        cursor.execute(PARTITIONS)
        for (partition,) in cursor.fetchall():
            name = f"{partition}_failed"
            # One that was broken off is there and does not work.
            cursor.execute(f"DROP INDEX IF EXISTS {name}")
            cursor.execute(f"CREATE INDEX CONCURRENTLY {name} ON {partition} {COLUMNS}")
            cursor.execute(f"ALTER INDEX usage_failed ATTACH PARTITION {name}")


def drop(_apps: Any, schema_editor: Any) -> None:
    """Remove it from every partition."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS usage_failed")


class Migration(migrations.Migration):
    # Requests go on and hours are summed while this runs.
    atomic = False
    dependencies = [("billing", "0021_removed_details")]
    operations = [
        migrations.RunPython(index, drop),
        AddIndexConcurrently(
            model_name="usagespansum",
            index=models.Index(
                fields=["span", "member_id", "key_id"],
                name="span_sum_unnamed",
                condition=models.Q(("end_user", ""), ("slice", "user")),
            ),
        ),
        AddIndexConcurrently(
            model_name="usagespansum",
            index=models.Index(
                fields=["span", "key_id"], name="span_sum_by_key", condition=models.Q(("slice", "key"))
            ),
        ),
        AddIndexConcurrently(
            model_name="usagespansum",
            index=models.Index(
                fields=["span", "member_id"], name="span_sum_by_member", condition=models.Q(("slice", "key"))
            ),
        ),
    ]
