"""Tell every worker of a change: a NOTIFY on ``weir_changed`` with ``routing`` or ``tenants``."""

from django.db import migrations

# Table: (channel payload, columns whose update matters; empty: all).
WATCHED = {
    "routing_provider": ("routing", ""),
    "routing_credential": ("routing", ""),
    "routing_deployment": ("routing", ""),
    "routing_modelgroup": ("routing", ""),
    "routing_groupdeployment": ("routing", ""),
    "billing_price": ("routing", ""),
    "billing_quota": ("tenants", ""),
    "tenants_organization": ("tenants", ""),
    "tenants_plan": ("tenants", ""),
    "tenants_team": ("tenants", ""),
    # Not last_used_at, which changes all the time and binds nobody.
    "tenants_apikey": (
        "tenants",
        "OF organization_id, team_id, owner_id, name, digest, model_groups, allowed_ips, expires_at, revoked_at",
    ),
}

CREATE = """
CREATE FUNCTION weir_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('weir_changed', TG_ARGV[0]);
    RETURN NULL;
END $$;
""" + "\n".join(
    f"CREATE TRIGGER {table}_changed AFTER INSERT OR DELETE OR UPDATE {columns} ON {table} "
    f"FOR EACH STATEMENT EXECUTE FUNCTION weir_notify('{payload}');"
    for table, (payload, columns) in WATCHED.items()
)
DROP = (
    "\n".join(f"DROP TRIGGER {table}_changed ON {table};" for table in WATCHED)
    + "\nDROP FUNCTION weir_notify();"
)


class Migration(migrations.Migration):
    dependencies = [
        ("gateway", "0001_initial"),
        ("tenants", "0001_initial"),
        ("routing", "0001_initial"),
        ("billing", "0001_initial"),
    ]
    operations = [migrations.RunSQL(CREATE, DROP)]
