"""The addresses under ``/api/``."""

from __future__ import annotations

from django.urls import path

from gateway.api import views

app_name = "api"

urlpatterns = [
    path("organizations/<slug:organization>/usage", views.UsageView.as_view(), name="usage"),
    path("organizations/<slug:organization>/report", views.ReportView.as_view(), name="report"),
    path("organizations/<slug:organization>/keys", views.KeysView.as_view(), name="keys"),
]
