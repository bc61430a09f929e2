"""The addresses of the operator area."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from gateway.operators import (
    accounting,
    dead_letters,
    deployments,
    groups,
    health,
    list_files,
    margin,
    price_history,
    price_sync,
    providers,
    reconcile,
    sign_in,
    tenants,
    visits,
    work,
)

app_name = "operator"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", tenants.tenants, name="tenants"),
    path("tenants.csv", list_files.tenant_file, name="tenants_csv"),
    path("tenants/<slug:slug>/", tenants.tenant, name="tenant"),
    path("tenants/<slug:slug>/standing/", tenants.standing, name="tenant_standing"),
    path("tenants/<slug:slug>/visit/", visits.visit, name="tenant_visit"),
    path("tenants/<slug:slug>/sign-in/", sign_in.tenant_sign_in, name="tenant_sign_in"),
    path("tenants/<slug:slug>/domains/<int:domain>/", sign_in.tenant_domain, name="tenant_domain"),
    path("health/", health.health, name="health"),
    path("accounting/", accounting.accounting, name="accounting"),
    path("accounting.csv", list_files.accounting_file, name="accounting_csv"),
    path("margin/", margin.margin, name="margin"),
    path("margin.csv", list_files.margin_file, name="margin_csv"),
    path("providers.csv", list_files.provider_file, name="providers_csv"),
    path("providers/", providers.providers, name="providers"),
    path("providers/<str:name>/", providers.provider_detail, name="provider"),
    path("deployments.csv", list_files.deployment_file, name="deployments_csv"),
    path("deployments/", deployments.deployments, name="deployments"),
    path("deployments/<str:name>/", deployments.deployment, name="deployment"),
    path("deployments/<str:name>/prices/", price_history.deployment_prices, name="deployment_prices"),
    path("groups.csv", list_files.group_file, name="model_groups_csv"),
    path("groups/", groups.model_groups, name="model_groups"),
    path("groups/<str:name>/", groups.model_group, name="model_group"),
    path("prices/", price_sync.price_sync, name="price_sync"),
    path("work/", work.work, name="work"),
    path("reconcile/", reconcile.reports, name="reconcile"),
    path("reconcile/<int:report>.csv", list_files.difference_file, name="reconcile_csv"),
    path("reconcile/<int:report>/", reconcile.report_detail, name="reconcile_report"),
    path("dead-letters.csv", list_files.letter_file, name="dead_letters_csv"),
    path("dead-letters/", dead_letters.letters, name="dead_letters"),
    path("dead-letters/<int:letter>/", dead_letters.letter_detail, name="dead_letter"),
]
