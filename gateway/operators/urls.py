"""The addresses of the operator area."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from gateway.operators import dead_letters, health, reconcile, tenants, work

app_name = "operator"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", tenants.tenants, name="tenants"),
    path("tenants/<slug:slug>/", tenants.tenant, name="tenant"),
    path("tenants/<slug:slug>/standing/", tenants.standing, name="tenant_standing"),
    path("health/", health.health, name="health"),
    path("work/", work.work, name="work"),
    path("reconcile/", reconcile.reports, name="reconcile"),
    path("reconcile/<int:report>/", reconcile.report_detail, name="reconcile_report"),
    path("dead-letters/", dead_letters.letters, name="dead_letters"),
    path("dead-letters/<int:letter>/", dead_letters.letter_detail, name="dead_letter"),
]
