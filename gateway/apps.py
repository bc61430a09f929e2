from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """The project: configuration files, the console and the data plane."""

    name = "gateway"
    verbose_name = "Gateway"
