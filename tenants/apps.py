from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Who may do what: organizations, teams, members, keys, the audit log."""

    name = "tenants"
    verbose_name = "Tenants"

    def ready(self) -> None:
        """Register the checks, which need the models."""
        from tenants import checks  # noqa: F401  # registers itself
