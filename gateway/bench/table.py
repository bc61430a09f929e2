"""The result as columns of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.bench.load import Report
from gateway.bench.workloads import Workload

PROVIDER = "provider, called directly"
WEIR = "Weir, every check on"


@dataclass(frozen=True, slots=True)
class Cell:
    """One ``peer`` under one workload. ``beside`` is what the gateway's other programs used meanwhile,
    in CPU microseconds a request, by name."""

    workload: str
    peer: str
    report: Report
    beside: dict[str, float]

    @property
    def per_second(self) -> float:
        """Requests answered a second."""
        return self.report.requests / self.report.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a request of what stands between client and provider."""
        return self.report.cpu_seconds / self.report.requests * 1e6

    @property
    def busy(self) -> float:
        """Cores in use, 1 being all of one."""
        return self.report.cpu_seconds / self.report.seconds

    @property
    def megabytes(self) -> float:
        """Resident memory at the end, in millions of bytes."""
        return self.report.rss_bytes / 1e6


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """``rows`` as lines of aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def table(workload: Workload, cells: Sequence[Cell], floor: str | None) -> list[str]:
    """One workload's cells, the direct call first: added latency is above its percentile, ratios are to
    the cell of the peer ``floor``, if there is one."""
    direct = cells[0].report
    base = next((cell for cell in cells if cell.peer == floor), None)
    streamed = direct.first_p50 is not None
    # At a fixed rate everybody answers as many.
    speed = base.per_second if base and workload.rate is None else None
    short = (floor or "").split(" ")[0]
    heading = ["", "requests/s", f"x {short}", "p50 ms", "p99 ms", "added p50", "added p99"]
    heading += ["first +p50", "first +p99"] if streamed else []
    heading += ["CPU us", f"x {short}", "core busy", "MB"]
    rows = [heading]
    for cell in cells:
        report = cell.report
        between = cell.peer != PROVIDER
        rows.append(
            [
                cell.peer,
                f"{cell.per_second:,.0f}" if cell.per_second >= 100 else f"{cell.per_second:.1f}",
                _ratio(cell.per_second, speed),
                f"{report.p50:.2f}",
                f"{report.p99:.2f}",
                _added(report.p50, direct.p50) if between else "",
                _added(report.p99, direct.p99) if between else "",
                *(
                    [
                        _added(report.first_p50, direct.first_p50) if between else "",
                        _added(report.first_p99, direct.first_p99) if between else "",
                    ]
                    if streamed
                    else []
                ),
                f"{cell.cpu_us:,.0f}" if between else "",
                _ratio(cell.cpu_us, base.cpu_us if base else None) if between else "",
                f"{cell.busy:.0%}" if between else "",
                f"{cell.megabytes:.0f}" if between else "",
            ]
        )
    # Without a floor there is nothing to be a multiple of.
    kept = [place for place, word in enumerate(heading) if base is not None or word != f"x {short}"]
    lines = [workload.title, *columns([[row[place] for place in kept] for row in rows])]
    beside = next((cell.beside for cell in cells if cell.beside), {})
    if beside:
        shown = ", ".join(f"{name} {value:,.0f}" for name, value in beside.items())
        lines.append(f"Beside the server, CPU us a request: {shown}")
    return lines


def _ratio(value: float, base: float | None) -> str:
    return "" if not base else f"{value / base:.2f}"


def _added(value: float | None, base: float | None) -> str:
    return "" if value is None or base is None else f"{value - base:+.2f}"
