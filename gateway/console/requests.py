"""The request list and the page of one request. What was asked and answered is never on either."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django_scopes import scopes_disabled

from billing import stored_content
from billing.access import names_in, usage_event, usage_page, visible_to
from billing.charge_lines import explain
from billing.models import Quota, UsageEvent
from billing.money import plain
from billing.tagged import Found, tagged_page, tags_offered
from billing.usage_export import moment
from gateway.console.access import TenantRequest, requires
from gateway.console.charts import Span, timeline
from gateway.console.contents import request_content
from gateway.console.costs import chips
from gateway.console.key_choice import choice, names_asked
from gateway.console.request_filter import ENDS, NO_FILTER, STATUSES, RequestFilter, request_filter
from gateway.templatetags.console import moment as in_words
from gateway.templatetags.reports import milliseconds
from gateway.usage_query import BadQuery, UsageQuery, presets, read, today
from gateway.v1.journal import REFUSED_BY
from routing.models import ModelGroup
from tenants.permissions import Permission

PAGE = 50
DAYS = 7
RATES = ("requests_per_minute", "tokens_per_minute", "concurrency")


def ending(event: UsageEvent) -> tuple[str, str, str]:
    """How ``event`` ended: a word, the colour of its badge, a sentence."""
    return ENDS.get(event.end_reason, (event.end_reason.replace("_", " ").capitalize(), "", ""))


def cursor_of(event: UsageEvent) -> str:
    """A place in the list: behind ``event``."""
    return f"{moment(event.started_at)}~{event.request_id}"


def cursor_at(begun: datetime) -> str:
    """The place before everything that began at ``begun`` or later."""
    return f"{moment(begun)}~"


def place(parameters: Mapping[str, str]) -> tuple[datetime, str] | None:
    """The place that ``cursor`` names; None for the beginning. Raises ``BadQuery``."""
    text = parameters.get("cursor", "")
    if not text:
        return None
    at, _, request_id = text.partition("~")
    try:
        begun = datetime.fromisoformat(at)
    except ValueError:
        raise BadQuery("cursor: this is no place in the list.") from None
    if begun.tzinfo is None or "\x00" in request_id:
        raise BadQuery("cursor: this is no place in the list.")
    return begun, request_id


@requires(Permission.VIEW_REQUESTS, Permission.VIEW_OWN_USAGE)
def requests(request: TenantRequest) -> HttpResponse:
    """``/o/<organization>/requests/``: newest first, with filters. With ``live=on`` it renews itself."""
    tenant = request.tenant
    organization = tenant.organization
    names = names_asked(organization, request.GET)
    visible = visible_to(tenant, Permission.VIEW_REQUESTS)
    wanted = request.GET.get("id", "").replace("\x00", "").strip()[:64]
    if wanted and usage_event(organization, wanted, visible) is not None:
        return redirect("console:request", organization=organization.slug, request_id=wanted)
    problem, narrowing, after = "", NO_FILTER, None
    try:
        query = read(request.GET, organization, names, days=DAYS)
        after = place(request.GET)
        narrowing = request_filter(request.GET)
    except BadQuery as error:
        after = None
        query, problem = (
            read({}, organization, names, days=DAYS),
            f"{error} All of the last {DAYS} days are shown.",
        )
    kept, known_tags = narrowing.kept, tags_offered(organization)
    narrowed = tenant.teams_with(Permission.VIEW_REQUESTS) is not None
    found = _page_of(query, narrowing, visible, after)
    more, events = len(found.events) > PAGE, found.events[:PAGE]
    cursor = cursor_of(events[-1]) if more else cursor_at(found.reached) if found.reached else ""
    of_rows = names_in(organization, events)
    return render(
        request,
        "console/requests/requests.html",
        {
            "rows": [
                {
                    "event": event,
                    "end": ending(event),
                    "team": of_rows.team(event.team_id),
                    "key": of_rows.key(event.key_id),
                    "user": event.end_user or of_rows.member(event.member_id),
                }
                for event in events
            ],
            "wanted": wanted,
            "problem": problem,
            "query": query,
            "parameters": query.parameters(**kept),
            "presets": _presets(query, kept),
            "chips": _chips(query, names, narrowing),
            "kept": kept,
            "offered": choice(tenant, query),
            "models": list(ModelGroup.objects.order_by("name").values_list("name", flat=True)),
            "statuses": [(value, label) for value, (label, _) in STATUSES.items()],
            "ends": [(value, label) for value, (label, _, _) in ENDS.items()],
            "live": not after and request.GET.get("live") == "on",
            "newer": f"?{query.parameters(**kept)}" if after else "",
            "older": f"?{query.parameters(**kept, cursor=cursor)}" if cursor else "",
            "reached": found.reached,
            "summary": f"Newest first, back to {in_words(found.reached)}"
            if found.reached
            else "Newest first",
            # Values may be those of teams that not everybody may see.
            "tags": [] if narrowed else known_tags,
            "tagged": bool(known_tags) or "tag" in kept,
            "narrowed": narrowed,
            "own_only": tenant.teams_with(Permission.VIEW_REQUESTS) == [],
        },
    )


def _page_of(
    query: UsageQuery, narrowing: RequestFilter, visible: Q, after: tuple[datetime, str] | None
) -> Found:
    """One more request than a page has, where there are as many."""
    start, end = query.bounds
    where = visible & query.where & narrowing.where
    if narrowing.tag is not None:
        return tagged_page(
            query.organization, narrowing.tag, start=start, end=end, where=where, after=after, size=PAGE + 1
        )
    return Found(
        usage_page(query.organization, start=start, end=end, where=where, after=after, size=PAGE + 1)
    )


def _presets(query: UsageQuery, kept: dict[str, str]) -> list[tuple[str, str, bool]]:
    """Ranges of time: today and the usual ones."""
    day = today(query.organization)
    ranges = [("Today", day, day), *((label, first, last) for label, first, last in presets(day)[2:])]
    return [
        (
            label,
            query.parameters(**kept, **{"from": first.isoformat(), "to": last.isoformat()}),
            (first, last) == (query.first, query.last),
        )
        for label, first, last in ranges
    ]


def _chips(query: UsageQuery, names: Any, narrowing: RequestFilter) -> list[dict[str, str]]:
    """Every filter in force, each with the query string without it."""
    kept = narrowing.kept
    shown = chips(query, names, kept=kept)
    for name, label in narrowing.labels().items():
        without = query.parameters(**{other: text for other, text in kept.items() if other != name})
        shown.append({"name": name.capitalize(), "value": label, "without": without})
    return shown


# --- One request ----------------------------------------------------------------------------------


def attempts_of(event: UsageEvent) -> list[dict[str, Any]]:
    """The attempts with what the page says of each."""
    shown = []
    for attempt in event.attempts:
        reason = str(attempt.get("reason") or "")
        status = attempt.get("status") or 0
        good = reason in ("ok", "completed") or (not reason and 200 <= status < 300)
        shown.append(
            {
                **attempt,
                "reason": reason,
                "status": status,
                "css": "good" if good else "warn" if reason in ("client_gone", "hedge_loser") else "bad",
                "words": "Answered" if good else reason.replace("_", " ").capitalize() or "Failed",
            }
        )
    return shown


def _timeline(event: UsageEvent, attempts: list[dict[str, Any]]) -> str:
    spans = []
    for attempt in attempts:
        name, length = str(attempt.get("deployment", "")), int(attempt.get("duration_ms") or 0)
        title = f"{name}: {attempt['words']} after {milliseconds(length)}"
        begun = int(attempt.get("started_ms") or 0)
        spans.append(Span(begun, length, attempt.get("first_token_ms"), attempt["css"], title))
    return timeline(
        spans, event.duration_ms, label=f"{len(spans)} attempts over {milliseconds(event.duration_ms)}"
    )


def signed(amount: Decimal) -> str:
    """A difference in US dollars, exact, with its sign."""
    return f"{'-' if amount < 0 else '+'}${plain(abs(amount))}"


def limits_on(event: UsageEvent) -> list[Quota]:
    """The quotas that bind such a request today and may have refused it, widest first."""
    metrics = {"rate_limit_exceeded": RATES, "insufficient_quota": ("budget",)}.get(event.error_code, ())
    if not metrics:
        return []
    organization = event.organization
    bound = (
        Q(organization=organization, scope="organization")
        | Q(organization=organization, scope="team", team_id=event.team_id)
        | Q(organization=organization, scope="key", key_id=event.key_id)
    )
    if organization.plan_id is not None:
        bound |= Q(organization__isnull=True, scope="plan", plan_id=organization.plan_id)
    if event.member_id is not None:
        bound |= Q(organization=organization, scope="member", member_id=event.member_id)
    if event.end_user:
        bound |= Q(organization=organization, scope="end_user", end_user__in=("", event.end_user))
    # A plan's quotas belong to no organization; the condition names this one everywhere else.
    with scopes_disabled():
        named = Q(model_group__in=("", event.model_group))
        quotas = list(Quota.objects.filter(bound & named, metric__in=metrics).order_by("pk"))
    order = ("plan", "organization", "team", "member", "key", "end_user")
    return sorted(quotas, key=lambda quota: (order.index(quota.scope), quota.metric, quota.pk))


@requires(Permission.VIEW_REQUESTS, Permission.VIEW_OWN_USAGE)
def request_detail(request: TenantRequest, *, request_id: str) -> HttpResponse:
    """``/o/<organization>/requests/<request id>/``."""
    tenant = request.tenant
    event = usage_event(tenant.organization, request_id, visible_to(tenant, Permission.VIEW_REQUESTS))
    if event is None:
        raise Http404
    names = names_in(tenant.organization, [event])
    attempts = attempts_of(event)
    explanation = explain(event)
    tags = {name: value for name, value in event.tags.items() if name != REFUSED_BY}
    refused = event.end_reason == "refused"
    return render(
        request,
        "console/requests/request.html",
        {
            "event": event,
            "end": ending(event),
            "team": names.team(event.team_id),
            "key": names.key(event.key_id),
            "key_hint": names.keys[event.key_id].hint if event.key_id in names.keys else "",
            "member": names.member(event.member_id),
            "attempts": attempts,
            "timeline": _timeline(event, attempts),
            "explanation": explanation,
            "total_tokens": event.usage.total,
            # What policy took off (or put on) what the tokens are worth.
            "adjustment": signed(event.charge - explanation.worth),
            "margin": event.charge - event.cost,
            "markup_percent": event.markup * 100,
            "refused_by": str(event.tags.get(REFUSED_BY, "")),
            "limits": limits_on(event) if refused else [],
            "wallet": refused and event.error_code == "insufficient_quota",
            # The gateway's own notes have a dot in their names, and are nothing to look for.
            "tags": [
                (name, value, "" if "." in name else urlencode({"tag": f"{name}={value}"}))
                for name, value in tags.items()
            ],
            "same_key": f"key={event.key_id}",
            "stored": stored_content.is_stored(tenant.organization, request_id),
            "content_days": stored_content.kept_days(tenant.organization),
            "may_read": tenant.may(Permission.VIEW_CONTENT),
        },
    )


urlpatterns = [
    path("", requests, name="requests"),
    path("<str:request_id>/", request_detail, name="request"),
    path("<str:request_id>/content/", request_content, name="request_content"),
]
