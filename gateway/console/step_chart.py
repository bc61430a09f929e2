"""A chart of amounts that hold from one moment to the next, as SVG drawn on the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from gateway.console.charts import NOTHING, short_money, ticks

HEIGHT = 170
TOP = 12
BOTTOM = 140
# What a label under the chart needs of its width.
APART = 0.32
Across = Callable[[datetime], float]


@dataclass(frozen=True, slots=True)
class Stretch:
    """US dollars from ``since`` until ``until``; None: there was no amount."""

    since: datetime
    until: datetime
    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class Line:
    """One amount over time: its stretches in order, each beginning where the one before ends."""

    label: str
    css: str
    stretches: Sequence[Stretch]


def step_chart(lines: Sequence[Line], now: datetime, *, label: str) -> SafeString:
    """``lines`` over the time they span, with a mark at ``now``; ``label`` says what is shown."""
    every = [stretch for line in lines for stretch in line.stretches]
    if not every:
        return NOTHING
    first, last = min(each.since for each in every), max(each.until for each in every)
    whole = (last - first).total_seconds() or 1.0
    marks = ticks(max((each.amount for each in every if each.amount is not None), default=Decimal(0)))
    scale = marks[-1] or Decimal(1)

    def across(moment: datetime) -> float:
        return (moment - first).total_seconds() / whole

    def height(amount: Decimal) -> float:
        return BOTTOM - float(amount / scale) * (BOTTOM - TOP)

    axis = format_html_join(
        "",
        '<text x="100%" y="{}" text-anchor="end">{}</text>',
        ((f"{height(mark) + 4:.1f}", short_money(mark)) for mark in marks),
    )
    grid = format_html_join(
        "",
        '<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>',
        ((f"{height(mark):.1f}",) for mark in marks),
    )
    today = (
        format_html(
            '<line class="now" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', _percent(across(now)), TOP, BOTTOM
        )
        if first < now < last
        else NOTHING
    )
    drawn = format_html_join("", "{}", ((_line(line, across, height),) for line in lines))
    return format_html(
        '<div class="bar-chart steps"><svg class="chart" height="{0}" aria-hidden="true">{1}</svg>'
        '<svg class="chart" height="{0}" role="img" aria-label="{2}">{3}{4}{5}{6}</svg></div>',
        HEIGHT,
        axis,
        label,
        grid,
        today,
        drawn,
        _dates(sorted({each.since for each in every}), now, across),
    )


def _line(line: Line, across: Across, height: Callable[[Decimal], float]) -> SafeString:
    parts: list[SafeString] = []
    before: Decimal | None = None
    for each in _merged(line.stretches):
        left, right = _percent(across(each.since)), _percent(across(each.until))
        if each.amount is not None:
            level = f"{height(each.amount):.1f}"
            if before is not None:
                parts.append(
                    format_html(
                        '<line class="step {0}" x1="{1}" x2="{1}" y1="{2}" y2="{3}"/>',
                        line.css,
                        left,
                        f"{height(before):.1f}",
                        level,
                    )
                )
            parts.append(
                format_html(
                    '<line class="step {0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>',
                    line.css,
                    left,
                    right,
                    level,
                )
            )
        before = each.amount
    return format_html(
        "<g><title>{}</title>{}</g>", line.label, format_html_join("", "{}", ((part,) for part in parts))
    )


def _merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same with equal neighbours as one."""
    found: list[Stretch] = []
    for each in stretches:
        if found and found[-1].amount == each.amount:
            found[-1] = Stretch(found[-1].since, each.until, each.amount)
        else:
            found.append(each)
    return found


def _dates(changes: Sequence[datetime], now: datetime, across: Across) -> SafeString:
    """The days of changes under the chart, as many as fit; those nearest to now first of all."""
    chosen: list[float] = []
    texts: list[tuple[str, int, str, str]] = []
    for moment in sorted(changes, key=lambda each: abs(each - now)):
        place = across(moment)
        if any(abs(place - other) < APART for other in chosen):
            continue
        chosen.append(place)
        anchor = "start" if place < 0.06 else "end" if place > 0.94 else "middle"
        texts.append((_percent(place), BOTTOM + 20, anchor, f"{localtime(moment):%-d %b %Y}"))
    return format_html_join("", '<text x="{}" y="{}" text-anchor="{}">{}</text>', texts)


def _percent(share: float) -> str:
    return f"{share * 100:.3f}%"
