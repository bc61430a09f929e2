"""Sums of days and months by tag. Spans of organizations without tags have them, since there are none; the
others are built once more."""

import django.db.models.deletion
from django.db import migrations, models

FORGET = """
CREATE FUNCTION billing_forget_tag_sums() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tagged_until := NULL;
    RETURN NEW;
END
$$;
-- Whoever spoils a span, a process of a release that knows no tags too, makes its sums by tag void.
CREATE TRIGGER span_spoiled BEFORE UPDATE ON billing_usagespan
    FOR EACH ROW WHEN (OLD.fresh AND NOT NEW.fresh) EXECUTE FUNCTION billing_forget_tag_sums();
"""
UNFORGET = """
DROP TRIGGER span_spoiled ON billing_usagespan;
DROP FUNCTION billing_forget_tag_sums();
"""
UNTAGGED = """
UPDATE billing_usagespan s SET tagged_until = until
WHERE fresh AND NOT EXISTS (SELECT FROM billing_tagrollup t WHERE t.organization_id = s.organization_id)
"""
LACKING = """
CREATE INDEX span_without_tags ON billing_usagespan (kind, start)
WHERE until > start AND tagged_until IS DISTINCT FROM until
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0023_tag_rollup_by_value")]

    operations = [
        migrations.AddField(
            model_name="usagespan",
            name="tagged_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="TagSpanSum",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=40)),
                ("value", models.CharField(blank=True, max_length=100)),
                ("team_id", models.BigIntegerField()),
                ("model_group", models.CharField(blank=True, max_length=100)),
                ("requests", models.BigIntegerField()),
                ("errors", models.BigIntegerField()),
                ("input_tokens", models.BigIntegerField()),
                ("cached_input_tokens", models.BigIntegerField()),
                ("cache_write_tokens", models.BigIntegerField()),
                ("output_tokens", models.BigIntegerField()),
                ("reasoning_tokens", models.BigIntegerField()),
                ("cost", models.DecimalField(decimal_places=12, max_digits=24)),
                ("charge", models.DecimalField(decimal_places=12, max_digits=24)),
                (
                    "span",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tag_sums",
                        to="billing.usagespan",
                    ),
                ),
            ],
            options={"indexes": [models.Index(fields=["span", "name"], name="tag_span_sum_by_name")]},
        ),
        migrations.RunSQL(FORGET, UNFORGET),
        migrations.RunSQL(UNTAGGED, migrations.RunSQL.noop),
        migrations.RunSQL(LACKING, "DROP INDEX span_without_tags"),
    ]
