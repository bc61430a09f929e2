"""Monthly statements: locked, numbered, and refused at commit unless they add up."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

GUARD = """
CREATE TRIGGER statement_kept BEFORE UPDATE OR DELETE ON billing_statement
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER statement_not_emptied BEFORE TRUNCATE ON billing_statement
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER statement_kept BEFORE UPDATE OR DELETE ON billing_statementline
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER statement_not_emptied BEFORE TRUNCATE ON billing_statementline
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER statement_kept BEFORE UPDATE OR DELETE ON billing_statementposting
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER statement_not_emptied BEFORE TRUNCATE ON billing_statementposting
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();

CREATE FUNCTION billing_check_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.closing - NEW.opening <> (
        SELECT coalesce(sum(amount), 0) FROM billing_statementline WHERE statement_id = NEW.id
    ) OR NEW.opening - NEW.closing <> (
        SELECT coalesce(sum(e.amount), 0) FROM billing_statementposting p
        JOIN billing_ledgerentry e ON e.transaction_id = p.posting_id
        WHERE p.statement_id = NEW.id AND e.account IN ('wallet', 'grants', 'receivable')
    ) THEN
        RAISE EXCEPTION 'The lines or postings of statement % do not add up', NEW.number
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER statement_adds_up AFTER INSERT ON billing_statement
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_statement();
"""
UNGUARD = """
DROP TRIGGER statement_adds_up ON billing_statement;
DROP FUNCTION billing_check_statement();
DROP TRIGGER statement_not_emptied ON billing_statementposting;
DROP TRIGGER statement_kept ON billing_statementposting;
DROP TRIGGER statement_not_emptied ON billing_statementline;
DROP TRIGGER statement_kept ON billing_statementline;
DROP TRIGGER statement_not_emptied ON billing_statement;
DROP TRIGGER statement_kept ON billing_statement;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0005_quota_groups_and_raises"),
        ("tenants", "0002_invitation_teams"),
    ]

    operations = [
        migrations.CreateModel(
            name="StatementNumber",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("month", models.DateField(unique=True)),
                ("last", models.IntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Statement",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.CharField(max_length=40, unique=True)),
                ("month", models.DateField()),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("time_zone", models.CharField(max_length=64)),
                ("issuer", models.TextField()),
                ("customer", models.CharField(max_length=200)),
                ("opening", models.DecimalField(decimal_places=12, max_digits=24)),
                ("closing", models.DecimalField(decimal_places=12, max_digits=24)),
                ("currency", models.CharField(default="USD", max_length=3)),
                ("made_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.organization",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="StatementLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.IntegerField()),
                ("kind", models.CharField(max_length=20)),
                ("team_id", models.BigIntegerField(null=True)),
                ("team", models.CharField(blank=True, max_length=200)),
                ("model_group", models.CharField(blank=True, max_length=100)),
                ("requests", models.BigIntegerField(default=0)),
                ("tokens", models.BigIntegerField(default=0)),
                ("posted_at", models.DateTimeField(null=True)),
                ("description", models.CharField(blank=True, max_length=430)),
                ("amount", models.DecimalField(decimal_places=12, max_digits=24)),
                (
                    "corrects",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="corrections",
                        to="billing.statement",
                    ),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lines",
                        to="billing.statement",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="StatementPosting",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "posting",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="statement",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="postings",
                        to="billing.statement",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.UniqueConstraint(
                fields=("organization", "month"), name="statement_once_a_month"
            ),
        ),
        migrations.AddConstraint(
            model_name="statementline",
            constraint=models.UniqueConstraint(fields=("statement", "position"), name="statement_line_once"),
        ),
        migrations.RunSQL(GUARD, UNGUARD),
    ]
