"""How reports write amounts: a whole column with the same digits, so that it can be added up by eye."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.currencies import USD, NoExchangeRate, rate_at
from billing.money import EXACT, plain
from tenants.models import Organization

register = template.Library()

MICRO = Decimal("0.000001")
CENT = Decimal("0.01")


@register.simple_tag
def cents(amount: Decimal) -> SafeString:
    """US dollars to the sixth place; the exact amount is in the title.

    What is below a cent is paler, unless it is all there is.
    """
    shown = amount.quantize(MICRO, rounding=ROUND_HALF_EVEN, context=EXACT)
    sign = "-" if shown < 0 else ""
    text = f"{abs(shown):,.6f}"
    paler = "" if 0 < abs(amount) < CENT else "below-cent"
    return format_html(
        '<span class="money {}" title="${}">{}${}<span class="{}">{}</span></span>',
        "" if amount else "faint",
        plain(amount),
        sign,
        text[:-4],
        paler,
        text[-4:],
    )


@register.filter
def trimmed(rate: Decimal) -> str:
    """A rate without needless zeros: ``0.92``."""
    return f"{rate.normalize():f}"


@register.simple_tag
def converted(amount: Decimal, organization: Organization) -> SafeString | str:
    """About how much ``amount`` (US dollars) is in the organization's own currency, at the rate of now: a note of a figure.

    Empty where that is US dollars, or has no rate.
    """
    if organization.currency == USD:
        return ""
    try:
        rate = rate_at(organization.currency, timezone.now())
    except NoExchangeRate:
        return ""
    return format_html(
        '<span class="stat-note" title="1 USD = {} {}">about {} {}</span>',
        trimmed(rate),
        organization.currency,
        organization.currency,
        f"{EXACT.multiply(amount, rate).quantize(CENT, rounding=ROUND_HALF_EVEN, context=EXACT):,}",
    )


@register.filter
def milliseconds(length: int | None) -> str:
    """A length of time for reading: ``840 ms``, ``3.2 s``, ``2 min 5 s``."""
    if length is None:
        return "\N{EN DASH}"
    if length < 1000:
        return f"{length} ms"
    if length < 60_000:
        return f"{length / 1000:.1f} s"
    return f"{length // 60_000} min {length % 60_000 // 1000} s"
