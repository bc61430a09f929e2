"""The addresses of the console."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from gateway.console import audit, home, keys, members, overview, quotas

app_name = "console"

_pages: list[URLPattern | URLResolver] = [
    path("", overview.overview, name="overview"),
    path("keys/", include(keys.urlpatterns)),
    path("quotas/", include(quotas.urlpatterns)),
    path("members/", include(members.urlpatterns)),
    path("audit/", audit.audit, name="audit"),
]

for _name in ("costs", "requests"):
    # These pages are written beside this one; each module has a list ``urlpatterns``.
    try:
        _module = __import__(f"gateway.console.{_name}", fromlist=["urlpatterns"])
    except ModuleNotFoundError as _missing:
        if _missing.name != f"gateway.console.{_name}":
            raise
        continue
    _pages.append(path(f"{_name}/", include(_module.urlpatterns)))

urlpatterns: list[URLPattern | URLResolver] = [
    path("", home.home, name="home"),
    path("o/<slug:organization>/", include(_pages)),
]
