from django.apps import AppConfig


class RoutingConfig(AppConfig):
    """Where a request goes: providers, credentials, deployments, model groups."""

    name = "routing"
    verbose_name = "Routing"
