"""How the console writes money, numbers and times, and its small repeated pieces."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.money import EXACT, plain
from tenants.access import organizations_of
from tenants.accounts import sign_up_open
from tenants.models import Organization, User
from tenants.permissions import Permission

register = template.Library()

DASH = "\N{EN DASH}"
_counter = itertools.count(1)


# --- Amounts ------------------------------------------------------------------------------------


@register.filter
def money(amount: Decimal | None) -> str:
    """US dollars for reading: cents, or two significant digits where that is less than a cent."""
    if amount is None:
        return DASH
    amount = Decimal(amount)
    sign = "-" if amount < 0 else ""
    size = abs(amount)
    places = 2 if size == 0 or size >= Decimal("0.01") else min(12, 1 - size.adjusted())
    shown = size.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN, context=EXACT)
    return f"{sign}${shown:,.{places}f}"


@register.filter
def exact(amount: Decimal | None) -> str:
    """US dollars to the last digit, for titles and exports."""
    return DASH if amount is None else plain(Decimal(amount))


@register.simple_tag
def amount(value: Decimal | None) -> SafeString:
    """Money with its exact value in the title."""
    if value is None:
        return format_html('<span class="faint">{}</span>', DASH)
    return format_html('<span class="money" title="${}">{}</span>', exact(value), money(value))


# Of what stands in a User-Agent, the first that is found: several claim to be the ones after them.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("Chrome", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari", "Safari"),
)
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


@register.filter
def browser(user_agent: str) -> str:
    """A User-Agent as people know it, such as "Firefox on Windows"; for programs, its first word."""
    name = next((shown for word, shown in BROWSERS if word in user_agent), "")
    system = next((shown for word, shown in SYSTEMS if word in user_agent), "")
    if name and system:
        return f"{name} on {system}"
    return name or system or user_agent[:40].split(" ", maxsplit=1)[0] or "Unknown program"


@register.filter
def number(value: int | Decimal | None) -> str:
    """A count with thousands separated; a Decimal that is a whole number is shown as one."""
    if value is None:
        return DASH
    if isinstance(value, Decimal):
        return f"{int(value):,}" if value == value.to_integral_value() else f"{value.normalize():,f}"
    return f"{value:,}"


@register.filter
def compact(value: int | Decimal | None) -> str:
    """A large count in three digits: 12,345,678 is 12.3M."""
    if value is None:
        return DASH
    size = Decimal(value)
    for unit, power in (("B", 9), ("M", 6), ("k", 3)):
        # What rounds to a thousand of one unit is one of the next.
        if size >= Decimal("0.9995").scaleb(power):
            short = size.scaleb(-power)
            digits = f"{short:.0f}" if short >= 100 else f"{short:.3g}"
            return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + unit
    return number(value)


def share(part: Decimal | int | None, whole: Decimal | int | None) -> Decimal | None:
    """``part`` of ``whole`` in percent; None where there is no whole."""
    if part is None or whole is None:
        return None
    if whole == 0:
        return Decimal(100) if part else Decimal(0)
    return Decimal(part) * 100 / Decimal(whole)


@register.filter
def percent(part: Decimal | int | None, whole: Decimal | int | None) -> str:
    """``part|percent:whole`` as ``42%``."""
    value = share(part, whole)
    if value is None:
        return DASH
    return f"{value:.1f}%" if 0 < value < 10 else f"{value:.0f}%"


# --- Times --------------------------------------------------------------------------------------


@register.filter
def ago(moment: datetime | None) -> str:
    """How far a moment is from now, in words: ``5 min ago``, ``in 3 days``."""
    if moment is None:
        return "never"
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    size = abs(seconds)
    if size < 45:
        return "just now" if seconds >= 0 else "in a moment"
    for unit, length, upto in (
        ("min", 60, 3600),
        ("h", 3600, 86400),
        ("day", 86400, 86400 * 45),
        ("month", 2629800, 0),
    ):
        if size < upto or not upto:
            count = max(1, round(size / length))
            words = f"{count} {unit}{'s' if unit in {'day', 'month'} and count != 1 else ''}"
            return f"{words} ago" if seconds >= 0 else f"in {words}"
    return ""


@register.filter
def moment(value: datetime | None) -> str:
    """A time in the current (the organization's) time zone: ``22 Nov 2026, 17:05``."""
    return DASH if value is None else f"{timezone.localtime(value):%-d %b %Y, %H:%M}"


@register.filter
def day(value: datetime | None) -> str:
    """A date in the current time zone: ``22 Nov 2026``."""
    return DASH if value is None else f"{timezone.localtime(value):%-d %b %Y}"


@register.simple_tag
def when(value: datetime | None, style: str = "ago", empty: str = "Never") -> SafeString:
    """A ``<time>`` with the exact moment in its title. ``style``: ago, moment or day."""
    if value is None:
        return format_html('<span class="faint">{}</span>', empty)
    words = {"ago": ago, "moment": moment, "day": day}[style](value)
    local = timezone.localtime(value)
    return format_html(
        '<time class="nowrap" datetime="{}" title="{}">{}</time>',
        value.astimezone(UTC).isoformat(timespec="seconds"),
        f"{local:%-d %B %Y, %H:%M:%S %Z}",
        words,
    )


# --- Pieces -------------------------------------------------------------------------------------


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """A drawing from ``static/img/icons.svg``; decoration, so hidden from screen readers."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        css,
        static("img/icons.svg"),
        name,
    )


@register.simple_tag
def meter(
    used: Decimal | int | None, limit: Decimal | int | None, held: Decimal | int = 0, css: str = ""
) -> SafeString:
    """A bar of ``used`` and ``held`` against ``limit``; amber from 80 %, red from 100 %."""
    spent = min(share(used or 0, limit) or Decimal(0), Decimal(100))
    reserved = min(share(held or 0, limit) or Decimal(0), Decimal(100) - spent)
    level = "bad" if spent >= 100 else "warn" if spent >= 80 else ""
    drawn = f"{spent:.2f}"
    return format_html(
        '<svg class="meter {} {}" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{}% used">'
        '<rect width="{}" height="6"/><rect class="held" x="{}" width="{}" height="6"/></svg>',
        level,
        css,
        f"{spent:.0f}",
        drawn,
        drawn,
        f"{reserved:.2f}",
    )


@register.inclusion_tag("console/field.html")
def field(bound: Any, label: str = "", hint: str = "", optional: bool | None = None) -> dict[str, Any]:
    """A form field with its label, hint and errors, tied together for screen readers.

    ``optional`` says whether the label says so; by default where the field need not be filled in.
    """
    kind = getattr(bound.field.widget, "input_type", "")
    return {
        "field": bound,
        "label": label or bound.label,
        "hint": hint or bound.help_text,
        "optional": not bound.field.required if optional is None else optional,
        "group": kind in {"radio", "checkbox"} and hasattr(bound.field, "choices"),
        "check": kind == "checkbox" and not hasattr(bound.field, "choices"),
    }


@register.simple_tag
def unique(prefix: str = "id") -> str:
    """An id for an element, different at each call."""
    return f"{prefix}-{next(_counter)}"


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The current query string with some parameters replaced (or dropped, where empty), from ``?``."""
    parameters = context["request"].GET.copy()
    for name, value in changes.items():
        if value in {None, ""}:
            parameters.pop(name, None)
        else:
            parameters[name] = str(value)
    return f"?{parameters.urlencode()}"


register.simple_tag(sign_up_open)


# --- Navigation -----------------------------------------------------------------------------------

# Name, address, drawing, and the permissions of which any, anywhere, opens the section.
SECTIONS: tuple[tuple[str, str, str, tuple[Permission, ...]], ...] = (
    ("Overview", "overview", "overview", (Permission.VIEW,)),
    ("Keys", "keys", "keys", (Permission.VIEW_OWN_USAGE,)),
    ("Playground", "playground", "play", (Permission.MAKE_OWN_KEYS, Permission.MANAGE_KEYS)),
    ("Quotas", "quotas", "quotas", (Permission.VIEW,)),
    ("Models", "models", "model", (Permission.VIEW,)),
    ("Members", "members", "members", (Permission.VIEW,)),
    ("End users", "end_users", "user", (Permission.VIEW_USAGE,)),
    ("Costs", "costs", "costs", (Permission.VIEW_USAGE, Permission.VIEW_OWN_USAGE)),
    ("Exports", "exports", "download", (Permission.EXPORT_USAGE,)),
    ("Ledger", "ledger", "balance", (Permission.VIEW_MONEY,)),
    ("Statements", "statements", "statement", (Permission.VIEW_MONEY,)),
    ("Prices", "price_history", "rotate", (Permission.VIEW_MONEY,)),
    ("Requests", "requests", "requests", (Permission.VIEW_REQUESTS,)),
    ("Health", "health", "clock", (Permission.VIEW,)),
    ("Notifications", "notifications", "info", (Permission.MANAGE_NOTIFICATIONS,)),
    ("Sign-in", "single_sign_on", "lock", (Permission.MANAGE_ORGANIZATION,)),
    ("Audit", "audit", "audit", (Permission.VIEW_AUDIT,)),
    ("Settings", "settings", "edit", (Permission.MANAGE_ORGANIZATION, Permission.VIEW_AUDIT)),
)
# The headings under which sections stand, in order; what is not named stands above them.
HEADINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Use", ("keys", "playground", "models", "health", "requests")),
    ("People and limits", ("members", "end_users", "quotas")),
    ("Money", ("costs", "exports", "ledger", "statements", "price_history")),
    ("Organization", ("notifications", "audit", "single_sign_on", "settings")),
)


def _place(name: str) -> tuple[int, int]:
    """Where a section stands: under which heading (0: above them), and there at which place."""
    for number, (_, names) in enumerate(HEADINGS, 1):
        if name in names:
            return number, names.index(name)
    return 0, 0


# The operator area: name, address, drawing.
OPERATOR_SECTIONS: tuple[tuple[str, str, str], ...] = (
    ("Tenants", "operator:tenants", "team"),
    ("Health", "operator:health", "clock"),
    ("Accounting check", "operator:accounting", "check"),
    ("Margin", "operator:margin", "costs"),
    ("Providers", "operator:providers", "model"),
    ("Deployments", "operator:deployments", "overview"),
    ("Model groups", "operator:model_groups", "filter"),
    ("Price sync", "operator:price_sync", "statement"),
    ("Workers and queues", "operator:work", "rotate"),
    ("Books", "operator:reconcile", "balance"),
    ("Dead letters", "operator:dead_letters", "warn"),
    ("Django admin", "admin:index", "external"),
)


def _operator_entries(path: str) -> list[dict[str, Any]]:
    home = reverse("operator:tenants")
    entries = []
    for label, name, drawing in OPERATOR_SECTIONS:
        url = reverse(name)
        current = path == home or path.startswith(f"{home}tenants/") if url == home else path.startswith(url)
        entries.append({"label": label, "url": url, "icon": drawing, "current": current})
    return entries


@register.inclusion_tag("console/nav.html", takes_context=True)
def navigation(context: template.Context) -> dict[str, Any]:
    """The sections that this person may open, the current one marked."""
    request = context["request"]
    access = getattr(request, "tenant", None)
    groups: dict[str, list[dict[str, Any]]] = {}
    if getattr(request.resolver_match, "namespace", "") == "operator":
        return {"groups": {"": _operator_entries(request.path)}}
    if access is not None:
        home = reverse("console:overview", args=[access.organization.slug])
        for label, name, drawing, permissions in sorted(SECTIONS, key=lambda section: _place(section[1])):
            if all(access.teams_with(wanted) == [] for wanted in permissions):
                continue
            url = reverse(f"console:{name}", args=[access.organization.slug])
            current = request.path == url if url == home else request.path.startswith(url)
            number, _ = _place(name)
            heading = HEADINGS[number - 1][0] if number else ""
            groups.setdefault(heading, []).append(
                {"label": label, "url": url, "icon": drawing, "current": current}
            )
    return {"groups": groups}


@register.simple_tag(takes_context=True)
def my_organizations(context: template.Context) -> list[Organization]:
    """The organizations of the person signed in."""
    user = context["request"].user
    return organizations_of(user) if isinstance(user, User) else []
