from django.apps import AppConfig


class BillingConfig(AppConfig):
    """What it costs: prices, quotas, usage, the ledger."""

    name = "billing"
    verbose_name = "Billing"
