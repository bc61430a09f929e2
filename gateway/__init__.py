"""The Django project of Weir: settings, URLs, the console's API, and the data plane in ``v1/``."""

from gateway.celery import app as celery_app

__all__ = ("celery_app",)
