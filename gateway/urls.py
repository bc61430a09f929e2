"""Every address outside ``/v1`` (which never reaches Django; see ``gateway/asgi.py``)."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("api/", include("gateway.api.urls")),
    path("operator/", include("gateway.operators.urls")),
    path("", include("gateway.console.urls")),
]
