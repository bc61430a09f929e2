"""Accounts as the books need them: grants, what is owed, and balances kept beside the entries."""

import django.db.models.deletion
from django.db import migrations, models

import billing.models.ledger

# Runs as the owner of the table, so that nobody else needs the right to write it.
KEEP = """
CREATE FUNCTION billing_keep_balances() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO billing_accountbalance AS kept (organization_id, account, grant_id, currency, balance)
    SELECT organization_id, account, grant_id, currency, sum(amount) FROM added GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (organization_id, account, grant_id, currency)
    DO UPDATE SET balance = kept.balance + EXCLUDED.balance;
    RETURN NULL;
END
$$;
CREATE TRIGGER balances_kept AFTER INSERT ON billing_ledgerentry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_balances();
INSERT INTO billing_accountbalance (organization_id, account, grant_id, currency, balance)
    SELECT organization_id, account, grant_id, currency, sum(amount) FROM billing_ledgerentry GROUP BY 1, 2, 3, 4;
CREATE TRIGGER grant_kept BEFORE UPDATE OR DELETE ON billing_grant
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER grant_not_emptied BEFORE TRUNCATE ON billing_grant
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
UNKEEP = """
DROP TRIGGER grant_not_emptied ON billing_grant;
DROP TRIGGER grant_kept ON billing_grant;
DROP TRIGGER balances_kept ON billing_ledgerentry;
DROP FUNCTION billing_keep_balances();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_guards"),
        ("tenants", "0002_invitation_teams"),
    ]

    operations = [
        migrations.CreateModel(
            name="Grant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("amount", models.DecimalField(decimal_places=12, max_digits=24)),
                ("starts_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.organization",
                    ),
                ),
                (
                    "posting",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="grant",
                        to="billing.ledgertransaction",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="AccountBalance",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("account", models.CharField(choices=billing.models.ledger.account_choices, max_length=20)),
                ("currency", models.CharField(max_length=3)),
                ("balance", models.DecimalField(decimal_places=12, max_digits=24)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.organization",
                    ),
                ),
                (
                    "grant",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="balances",
                        to="billing.grant",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="ledgerentry",
            name="grant",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="entries",
                to="billing.grant",
            ),
        ),
        migrations.AddConstraint(
            model_name="grant",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0), ("expires_at__gt", models.F("starts_at"))),
                name="grant_sound",
            ),
        ),
        migrations.AddConstraint(
            model_name="accountbalance",
            constraint=models.UniqueConstraint(
                fields=("organization", "account", "grant", "currency"),
                name="balance_once",
                nulls_distinct=False,
            ),
        ),
        migrations.RunSQL(KEEP, UNKEEP),
    ]
