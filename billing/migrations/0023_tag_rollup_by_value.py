"""The hours in which a tag had a value are read from an index, for the list of the requests with it."""

from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # The hours of a large installation are summed while this runs.
    atomic = False

    dependencies = [
        ("billing", "0022_rare_and_few"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="tagrollup",
            index=models.Index(fields=["organization", "name", "value", "hour"], name="tag_rollup_by_value"),
        ),
    ]
