"""Tell every worker that a key was paused or resumed, as of its other changes."""

from django.db import migrations

COLUMNS = (
    "organization_id, team_id, owner_id, name, digest, model_groups, allowed_ips, expires_at, revoked_at"
)
TRIGGER = """
DROP TRIGGER tenants_apikey_changed ON tenants_apikey;
CREATE TRIGGER tenants_apikey_changed AFTER INSERT OR DELETE OR UPDATE OF {} ON tenants_apikey
FOR EACH STATEMENT EXECUTE FUNCTION weir_notify('tenants');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("gateway", "0006_notify_of_blocks"),
        ("tenants", "0011_paused_keys"),
    ]
    operations = [migrations.RunSQL(TRIGGER.format(f"{COLUMNS}, paused_at"), TRIGGER.format(COLUMNS))]
