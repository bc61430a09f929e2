"""The JSON API. ``tenants.middleware.TenantScope`` has let the person into the organization already:
401 without a session, 404 for an organization that is not theirs."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.db.models import Q
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.access import names_in, usage_page, visible_to
from billing.reports import DIMENSIONS
from billing.tag_reports import TAG, NotByTag, known, report_of, visible_by_tag
from billing.usage_export import usage_row
from gateway.api.serializers import KeySerializer, report_shape
from gateway.console.access import somewhere
from gateway.console.key_choice import names_asked
from gateway.console.keyring import visible_keys
from gateway.console.request_filter import request_filter
from gateway.console.requests import cursor_of, place
from gateway.usage_query import BadQuery, UsageQuery, read
from tenants.access import TenantAccess
from tenants.models import User
from tenants.permissions import Permission

PAGE, LARGEST_PAGE = 100, 1000


class TenantView(APIView):
    """A view inside one organization, open to members with any of ``permissions``."""

    permissions: ClassVar[tuple[Permission, ...]] = ()

    @property
    def tenant(self) -> TenantAccess:
        """What the person may do in the organization of the address."""
        return cast(TenantAccess, self.request._request.tenant)  # type: ignore[attr-defined]  # noqa: SLF001  # set by TenantScope on Django's request

    @property
    def provider_cost(self) -> bool:
        """Whether to show what providers ask: to operators only."""
        return cast(User, self.request.user).is_staff

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse with 403 whoever has none of the permissions, in the organization or a team of it."""
        super().initial(request, *args, **kwargs)
        if not any(somewhere(self.tenant, permission) for permission in self.permissions):
            raise PermissionDenied

    def query(self) -> UsageQuery:
        """Dates and filters. Raises a ValidationError (400) that names the parameter."""
        organization = self.tenant.organization
        try:
            return read(
                self.request.query_params, organization, names_asked(organization, self.request.query_params)
            )
        except BadQuery as error:
            raise ValidationError({"detail": str(error)}) from None


class UsageView(TenantView):
    """``GET usage``: the rows of the export, oldest first, in pages.

    Parameters: ``from``, ``to``, the filters of reports and of the request list, ``limit`` and ``cursor``
    (``next`` of the page before).
    """

    permissions = (Permission.EXPORT_USAGE,)

    def get(self, request: Request, organization: str) -> Response:  # noqa: ARG002  # entered by TenantScope
        """One page of rows."""
        query, tenant = self.query(), self.tenant
        text = request.query_params.get("limit", str(PAGE))
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LARGEST_PAGE):
            raise ValidationError({"detail": f"limit: use a number from 1 to {LARGEST_PAGE}."})
        size = int(text)
        try:
            after = place(request.query_params)
            narrowing = request_filter(request.query_params)
        except BadQuery as error:
            raise ValidationError({"detail": str(error)}) from None
        start, end = query.bounds
        events = usage_page(
            tenant.organization,
            start=start,
            end=end,
            where=visible_to(tenant) & query.where & narrowing.condition,
            after=after,
            size=size + 1,
            newest_first=False,
        )
        more, events = len(events) > size, events[:size]
        names = names_in(tenant.organization, events)
        return Response(
            {
                "data": [
                    usage_row(event, tenant.organization, names, provider_cost=self.provider_cost)
                    for event in events
                ],
                "next": cursor_of(events[-1]) if more else None,
            }
        )


class ReportView(TenantView):
    """``GET report``: sums by ``by`` over ``from`` to ``to``, narrowed by the filters of reports."""

    permissions = (Permission.VIEW_USAGE, Permission.VIEW_OWN_USAGE)

    def get(self, request: Request, organization: str) -> Response:  # noqa: ARG002  # entered by TenantScope
        """The whole report."""
        by = request.query_params.get("by", "user")
        if not known(by, operator=self.provider_cost):
            allowed = [each for each in DIMENSIONS if self.provider_cost or each != "deployment"]
            raise ValidationError({"detail": f"by: use one of {', '.join(allowed)}, or tag:<name>."})
        query = self.query()
        visible = visible_by_tag if by.startswith(TAG) else visible_to
        where: Q = visible(self.tenant) & query.where
        try:
            report = report_of(self.tenant.organization, by, *query.bounds, where)
        except NotByTag as error:
            raise ValidationError({"detail": str(error)}) from None
        return Response(report_shape(report, provider_cost=self.provider_cost))


class KeysView(TenantView):
    """``GET keys``: the API keys this person may see, without anything secret."""

    permissions = (Permission.VIEW,)

    def get(self, request: Request, organization: str) -> Response:  # noqa: ARG002  # entered by TenantScope
        """All of them, by team and name."""
        keys = visible_keys(self.tenant).order_by("team__slug", "name", "pk")
        return Response({"data": KeySerializer(keys, many=True).data})
