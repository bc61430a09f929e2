"""Tell every worker that an end user was blocked or unblocked: ``end_users`` on ``weir_changed``."""

from django.db import migrations

CREATE = """
CREATE TRIGGER billing_blockedenduser_changed AFTER INSERT OR DELETE OR UPDATE OF organization_id, end_user
ON billing_blockedenduser FOR EACH STATEMENT EXECUTE FUNCTION weir_notify('end_users');
"""
DROP = "DROP TRIGGER billing_blockedenduser_changed ON billing_blockedenduser;"


class Migration(migrations.Migration):
    dependencies = [
        ("gateway", "0005_usage_check"),
        ("billing", "0016_blocked_end_users"),
    ]
    operations = [migrations.RunSQL(CREATE, DROP)]
