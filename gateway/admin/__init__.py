"""Django's admin, for platform operators: providers, models, prices, tenants, people.

It writes through the same services as everything else, so every change has its audit entry; what a
service refuses is shown as a message and nothing is saved.
"""

from __future__ import annotations

from django.contrib import admin

# Registered where they are made.
from gateway.admin import billing, organizations, routing, tenants

__all__ = ("billing", "organizations", "routing", "tenants")

admin.site.site_header = "Weir: operator area"
admin.site.site_title = "Weir"
admin.site.index_title = "Providers, models, tenants"
