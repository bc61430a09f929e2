from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Who may do what: organizations, teams, members, keys, the audit log."""

    name = "tenants"
    verbose_name = "Tenants"
