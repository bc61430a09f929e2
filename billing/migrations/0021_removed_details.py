"""Details of old requests can be removed, and nothing else of a usage event be changed."""

import django.db.models.deletion
from django.db import migrations, models

# An event may lose its details, once; each other column stays as it is, and a tag stays or loses its value.
GUARD = """
CREATE FUNCTION billing_only_details_removed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    details constant text[] := ARRAY['attempts', 'error_code', 'first_token_ms', 'tags', 'details_removed_at'];
BEGIN
    IF OLD.details_removed_at IS NULL AND NEW.details_removed_at IS NOT NULL
        AND NEW.attempts = '[]' AND NEW.error_code = '' AND NEW.first_token_ms IS NULL
        AND to_jsonb(NEW) - details = to_jsonb(OLD) - details
        AND NOT EXISTS (
            SELECT FROM jsonb_each(NEW.tags) AS tag
            WHERE tag.value NOT IN ('""', coalesce(OLD.tags -> tag.key, 'null'))
                OR NOT OLD.tags ? tag.key
        )
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'UPDATE on % is refused: but for details that are removed, its rows are only ever added',
        TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
DROP TRIGGER usage_row_kept ON billing_usageevent;
CREATE TRIGGER usage_row_kept BEFORE DELETE ON billing_usageevent
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER usage_row_unchanged BEFORE UPDATE ON billing_usageevent
    FOR EACH ROW EXECUTE FUNCTION billing_only_details_removed();
"""
UNGUARD = """
DROP TRIGGER usage_row_unchanged ON billing_usageevent;
DROP TRIGGER usage_row_kept ON billing_usageevent;
CREATE TRIGGER usage_row_kept BEFORE UPDATE OR DELETE ON billing_usageevent
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
DROP FUNCTION billing_only_details_removed();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0020_events_by_end_user"), ("tenants", "0013_keep_details_days")]

    operations = [
        migrations.AddField(
            model_name="usageevent", name="details_removed_at", field=models.DateTimeField(null=True)
        ),
        migrations.CreateModel(
            name="DetailRemoval",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="tenants.organization",
                    ),
                ),
                ("done_until", models.DateTimeField()),
                ("requests", models.BigIntegerField(db_default=0, default=0)),
            ],
        ),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
