"""Where failed attempts to sign in are counted, in the form that Django's database cache wants."""

from django.db import migrations

MAKE = """
CREATE TABLE tenants_attempts (
    cache_key varchar(255) PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL
);
CREATE INDEX tenants_attempts_expires ON tenants_attempts (expires);
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0009_playground_keys")]

    operations = [migrations.RunSQL(MAKE, "DROP TABLE tenants_attempts")]
