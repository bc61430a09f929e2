"""Charts as SVG, drawn on the server: no script, no inline style.

A chart fills the width it gets: positions along it are shares, so text keeps its size on every
screen. Heights and text sizes are pixels; ``static/css/reports.css`` holds the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from billing.money import plain

HEIGHT = 220
TOP = 12
BOTTOM = 190
LABELS = 6
STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))
NOTHING = mark_safe("")  # a literal


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, made of parts from the bottom up. Amounts are not negative."""

    # Under the bar, where there is room.
    label: str
    # All that is shown of it: read out, and shown under the pointer.
    title: str
    parts: Sequence[Decimal]
    href: str = ""
    # The same a period before, drawn behind; None: not compared.
    before: Decimal | None = None


def ticks(highest: Decimal, count: int = 4) -> list[Decimal]:
    """Round values from zero to at least ``highest``, ``count`` steps at most."""
    if highest <= 0:
        return [Decimal(0)]
    rough = highest / count
    unit = Decimal(1).scaleb(rough.adjusted())
    step = next(size * unit for size in STEPS if size * unit >= rough)
    steps = int((highest / step).to_integral_value(rounding=ROUND_CEILING))
    return [step * number for number in range(steps + 1)]


def short_money(amount: Decimal) -> str:
    """US dollars for an axis: $1.5k, $20, $0.002."""
    for size, letter in ((Decimal(10) ** 6, "M"), (Decimal(1000), "k")):
        if amount >= size:
            return f"${(amount / size).normalize():f}{letter}"
    if amount == amount.to_integral_value():
        return f"${amount:.0f}"
    return f"${plain(amount)}"


def _percent(share: float) -> str:
    return f"{share * 100:.3f}%"


def bar_chart(bars: Sequence[Bar], *, label: str, colours: Sequence[str] = ("s1",)) -> SafeString:
    """Bars of US dollars side by side. ``colours`` are the classes of the parts, ``label`` says what is shown."""
    highest = max(
        (max(sum(bar.parts, Decimal(0)), bar.before or Decimal(0)) for bar in bars), default=Decimal(0)
    )
    marks = ticks(highest)
    scale = marks[-1] or Decimal(1)

    def height(amount: Decimal) -> float:
        return float(amount / scale) * (BOTTOM - TOP)

    axis = format_html_join(
        "",
        '<text x="100%" y="{}" text-anchor="end">{}</text>',
        ((f"{BOTTOM - height(mark) + 4:.1f}", short_money(mark)) for mark in marks),
    )
    grid = format_html_join(
        "",
        '<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>',
        ((f"{BOTTOM - height(mark):.1f}",) for mark in marks),
    )
    drawn = format_html_join(
        "", "{}", ((_bar(bar, number, len(bars), height, colours),) for number, bar in enumerate(bars))
    )
    every = -(-len(bars) // LABELS) or 1
    labels = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="middle">{}</text>',
        (
            (_percent((number + 0.5) / len(bars)), BOTTOM + 20, bar.label)
            for number, bar in enumerate(bars)
            # There is no room for one under the last of many.
            if number % every == every // 2 and (every == 1 or number < len(bars) - 1)
        ),
    )
    return format_html(
        '<div class="bar-chart"><svg class="chart" height="{0}" aria-hidden="true">{1}</svg>'
        '<svg class="chart" height="{0}" role="{6}" aria-label="{2}">{3}{4}{5}</svg></div>',
        HEIGHT,
        axis,
        label,
        grid,
        drawn,
        labels,
        # What has links in it is not one picture to a screen reader.
        "group" if any(bar.href for bar in bars) else "img",
    )


def _bar(
    bar: Bar, number: int, count: int, height: Callable[[Decimal], float], colours: Sequence[str]
) -> SafeString:
    """One bar with the area around it, which answers to the pointer."""
    width = 0.7 if count <= 100 else 0.9
    bottom = float(BOTTOM)
    parts: list[SafeString] = []
    if bar.before:
        size = max(height(bar.before), 1.0)
        parts.append(
            format_html(
                '<rect class="before" x="{}" y="{}" width="{}" height="{}" rx="1"/>',
                _percent((number + 0.03) / count),
                f"{bottom - size:.1f}",
                _percent(0.94 / count),
                f"{size:.1f}",
            )
        )
    for place, part in enumerate(bar.parts):
        if part <= 0:
            continue
        # The smallest amount is still seen.
        size = max(height(part), 1.0)
        bottom -= size
        parts.append(
            format_html(
                '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"/>',
                colours[place % len(colours)],
                _percent((number + (1 - width) / 2) / count),
                f"{bottom:.1f}",
                _percent(width / count),
                f"{size:.1f}",
            )
        )
    area = format_html(
        '<title>{}</title><rect class="area-hit" x="{}" y="0" width="{}" height="{}"/>{}',
        bar.title,
        _percent(number / count),
        _percent(1 / count),
        BOTTOM,
        format_html_join("", "{}", ((part,) for part in parts)),
    )
    if bar.href:
        return format_html('<a class="bar" href="{}" tabindex="-1">{}</a>', bar.href, area)
    return format_html('<g class="bar">{}</g>', area)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in milliseconds from the start, with an optional mark inside it."""

    start: int
    length: int
    mark: int | None
    css: str
    title: str


def timeline(spans: Sequence[Span], total: int, *, label: str) -> SafeString:
    """Stretches of time below one another, over ``total`` milliseconds."""
    row = 26
    whole = max(total, max((span.start + span.length for span in spans), default=0), 1)
    lines = format_html_join(
        "",
        '<g><title>{}</title><rect class="track" x="0" y="{}" width="100%" height="10" rx="3"/>'
        '<rect class="{}" x="{}" y="{}" width="{}" height="10" rx="3"/>{}</g>',
        (
            (
                span.title,
                number * row + 6,
                span.css,
                _percent(span.start / whole),
                number * row + 6,
                _percent(max(span.length / whole, 0.004)),
                format_html(
                    '<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>',
                    _percent(span.mark / whole),
                    number * row + 2,
                    number * row + 20,
                )
                if span.mark is not None
                else NOTHING,
            )
            for number, span in enumerate(spans)
        ),
    )
    return format_html(
        '<svg class="timeline" height="{}" role="img" aria-label="{}">{}</svg>',
        len(spans) * row,
        label,
        lines,
    )


def strip(words: Sequence[str], label: str) -> SafeString:
    """A row of small bars, the oldest first, each of the class (``good``, ``warn``, ``bad``, ``off``) in ``words``."""
    bars = format_html_join(
        "",
        '<rect class="{}" x="{}" width="4" height="14" rx="1"/>',
        ((word, 6 * number) for number, word in enumerate(words)),
    )
    return format_html(
        '<svg class="strip" role="img" aria-label="{}" width="{}" height="14">{}</svg>',
        label,
        6 * len(words),
        bars,
    )
