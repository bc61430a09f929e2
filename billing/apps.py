from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BillingConfig(AppConfig):
    """What it costs: prices, quotas, usage, the ledger."""

    name = "billing"
    verbose_name = "Billing"

    def ready(self) -> None:
        from billing import database_role

        # Sent once every table is there.
        post_migrate.connect(database_role.grant, sender=self, dispatch_uid="billing.database_role")
