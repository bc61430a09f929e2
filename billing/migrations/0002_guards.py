"""What PostgreSQL itself refuses: changes of the ledger and of usage events, unbalanced postings."""

from datetime import UTC, datetime

from django.db import migrations

from billing import partitions

REFUSE = """
CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows are only ever added', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER ledger_kept BEFORE UPDATE OR DELETE ON billing_ledgertransaction
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER ledger_not_emptied BEFORE TRUNCATE ON billing_ledgertransaction
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER ledger_kept BEFORE UPDATE OR DELETE ON billing_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER ledger_not_emptied BEFORE TRUNCATE ON billing_ledgerentry
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
-- Row triggers reach every partition; events go only with their whole month (DROP of a partition).
CREATE TRIGGER usage_row_kept BEFORE UPDATE OR DELETE ON billing_usageevent
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER usage_kept BEFORE TRUNCATE ON billing_usageevent
    FOR EACH STATEMENT EXECUTE FUNCTION billing_refuse_change();
"""
UNREFUSE = """
DROP TRIGGER usage_kept ON billing_usageevent;
DROP TRIGGER usage_row_kept ON billing_usageevent;
DROP TRIGGER ledger_not_emptied ON billing_ledgerentry;
DROP TRIGGER ledger_kept ON billing_ledgerentry;
DROP TRIGGER ledger_not_emptied ON billing_ledgertransaction;
DROP TRIGGER ledger_kept ON billing_ledgertransaction;
DROP FUNCTION billing_refuse_change() CASCADE;
"""

BALANCE = """
CREATE FUNCTION billing_check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM billing_ledgerentry WHERE transaction_id = NEW.transaction_id
        GROUP BY currency HAVING sum(amount) <> 0
    ) THEN
        RAISE EXCEPTION 'The entries of ledger transaction % do not sum to zero', NEW.transaction_id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER ledger_balanced AFTER INSERT ON billing_ledgerentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_balance();
"""
UNBALANCE = """
DROP TRIGGER ledger_balanced ON billing_ledgerentry;
DROP FUNCTION billing_check_balance();
"""

# numeric has a NaN, which is above every number and would spoil each sum it enters.
NUMBERS = """
ALTER TABLE billing_usageevent
    ADD CONSTRAINT usage_cost_number CHECK (cost <> 'NaN'),
    ADD CONSTRAINT usage_charge_number CHECK (charge <> 'NaN'),
    ADD CONSTRAINT usage_markup_number CHECK (markup <> 'NaN');
"""
UNNUMBERS = """
ALTER TABLE billing_usageevent
    DROP CONSTRAINT usage_cost_number, DROP CONSTRAINT usage_charge_number, DROP CONSTRAINT usage_markup_number;
"""

INDEXES = """
CREATE INDEX dirty_by_bucket ON billing_dirtybucket (organization_id, hour);
-- A shipper that starts anew meets the same unreadable lines again.
CREATE INDEX deadletter_by_record ON billing_deadletter (md5(record));
"""
UNINDEXES = """
DROP INDEX deadletter_by_record;
DROP INDEX dirty_by_bucket;
"""


# Hours whose rollups changed and whose difference is not posted yet: a queue between two tasks, not
# a model. Rows are only added, and removed by the transaction that posts.
UNPOSTED = """
CREATE TABLE billing_unpostedhour (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES tenants_organization ON DELETE CASCADE,
    hour timestamptz NOT NULL
);
CREATE INDEX unposted_by_organization ON billing_unpostedhour (organization_id);
"""


def make_partitions(apps, schema_editor):  # noqa: ARG001  # Django calls it with both
    month = datetime.now(tz=UTC)
    with schema_editor.connection.cursor() as cursor:
        partitions.ensure(cursor, month)
        partitions.ensure(cursor, partitions.after(month))


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [
        migrations.RunSQL(REFUSE, UNREFUSE),
        migrations.RunSQL(BALANCE, UNBALANCE),
        migrations.RunSQL(NUMBERS, UNNUMBERS),
        migrations.RunSQL(INDEXES, UNINDEXES),
        migrations.RunSQL(UNPOSTED, "DROP TABLE billing_unpostedhour"),
        # Undone with the table itself.
        migrations.RunPython(make_partitions, migrations.RunPython.noop),
    ]
