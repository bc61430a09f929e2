"""What one key or one end user used, divided by something else, is read from an index of the hours."""

from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # The hours of a large installation are summed while this runs.
    atomic = False

    dependencies = [
        ("billing", "0018_tags"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="usagerollup",
            index=models.Index(fields=["organization", "key_id", "hour"], name="rollup_by_key"),
        ),
        AddIndexConcurrently(
            model_name="usagerollup",
            index=models.Index(
                fields=["organization", "end_user", "hour"],
                name="rollup_by_end_user",
                condition=models.Q(("end_user", ""), _negated=True),
            ),
        ),
    ]
