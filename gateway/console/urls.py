"""The addresses of the console."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from gateway import second_factor
from gateway.console import (
    audit,
    costs,
    end_user,
    end_users,
    exports,
    funds,
    health,
    home,
    invitations,
    keys,
    ledger,
    members,
    models,
    notifications,
    organizations,
    overview,
    people,
    playground,
    price_history,
    quotas,
    requests,
    settings,
    sign_in,
    statements,
    trial,
    why,
)
from gateway.single_sign_on import again
from gateway.single_sign_on import pages as single_sign_on

app_name = "console"

_pages: list[URLPattern | URLResolver] = [
    path("", overview.overview, name="overview"),
    path("keys/", include(keys.urlpatterns)),
    path("playground/", include(playground.urlpatterns)),
    path("quotas/", include([*trial.urlpatterns, *quotas.urlpatterns])),
    path("models/", include([*models.urlpatterns, *why.urlpatterns, *price_history.urlpatterns])),
    path("health/", health.health, name="health"),
    path("end-users/", include([*end_users.urlpatterns, *end_user.urlpatterns])),
    path("members/", include([*people.urlpatterns, *members.urlpatterns, *invitations.urlpatterns])),
    path("costs/", include(costs.urlpatterns)),
    path("exports/", include(exports.urlpatterns)),
    path("prices/", price_history.price_list, name="price_history"),
    path("ledger/", include(ledger.urlpatterns)),
    path("funds/", include(funds.urlpatterns)),
    path("statements/", include(statements.urlpatterns)),
    path("requests/", include(requests.urlpatterns)),
    path("notifications/", include(notifications.urlpatterns)),
    path("sign-in/", include(sign_in.urlpatterns)),
    path("audit/", include(audit.urlpatterns)),
    path("settings/", include(settings.urlpatterns)),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", home.home, name="home"),
    path("payments/", include(funds.public_urlpatterns)),
    path("organizations/", include(organizations.public_urlpatterns)),
    path("invitation/", include(invitations.public_urlpatterns)),
    path("sign-in/", include(single_sign_on.urlpatterns)),
    path("confirm/", include(again.urlpatterns)),
    path("second-factor/", include(second_factor.urlpatterns)),
    path("o/<slug:organization>/", include(_pages)),
]
