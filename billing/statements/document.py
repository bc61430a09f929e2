"""A statement as PDF: the same bytes whenever it is asked for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from django.conf import settings
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from billing.models import Statement, StatementLine
from billing.money import PLACES, rounded
from billing.wallet_lines import KINDS

MARGIN = 20 * mm
WIDTH = A4[0] - 2 * MARGIN
INK, FAINT, RULE = colors.HexColor("#16181d"), colors.HexColor("#6b7280"), colors.HexColor("#d6d9de")
PANEL = colors.HexColor("#f5f6f8")


@cache
def _fonts(path: str) -> tuple[str, str]:
    """Names of the plain and the bold font. The built-in ones know the letters of western Europe alone."""
    if not path:
        return "Helvetica", "Helvetica-Bold"
    pdfmetrics.registerFont(TTFont("Statement", path))
    return "Statement", "Statement"


def places_of(amounts: Iterable[Decimal]) -> int:
    """How many places after the point show every one of ``amounts`` exactly: 2 to 12."""
    most = 2
    for amount in amounts:
        fraction = f"{rounded(amount):f}".partition(".")[2].rstrip("0")
        most = max(most, len(fraction))
    return min(most, PLACES)


def figure(amount: Decimal, places: int) -> str:
    """``amount`` with thousands grouped and ``places`` after the point; a true minus sign."""
    text = f"{abs(amount):,.{places}f}"
    return f"\u2212{text}" if amount < 0 and text.strip("0,.") else text


class _Numbered(Canvas):
    """A canvas that knows the number of its pages when it writes their feet."""

    def __init__(self, *arguments: Any, foot: str, font: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._foot, self._font, self._pages = foot, font, list[dict[str, Any]]()

    def showPage(self) -> None:  # noqa: N802  # reportlab's name
        self._pages.append(dict(self.__dict__))
        self._startPage()  # type: ignore[attr-defined]  # reportlab's documented way, without a stub

    def save(self) -> None:
        for number, page in enumerate(self._pages, 1):
            self.__dict__.update(page)
            self.setFont(self._font, 7.5)
            self.setFillColor(FAINT)
            self.drawString(MARGIN, 11 * mm, self._foot)
            self.drawRightString(A4[0] - MARGIN, 11 * mm, f"Page {number} of {len(self._pages)}")
            super().showPage()
        super().save()


class _Page:
    """The pieces of one statement, in its fonts."""

    def __init__(self, statement: Statement, lines: Sequence[StatementLine]) -> None:
        self.statement, self.lines = statement, lines
        self.plain, self.bold = _fonts(settings.STATEMENT_FONT)
        self.places = places_of([statement.opening, statement.closing, *(line.amount for line in lines)])

    def style(self, size: float, **options: Any) -> ParagraphStyle:
        """A style of text."""
        bold = options.pop("bold", False)
        values: dict[str, Any] = {
            "fontName": self.bold if bold else self.plain,
            "fontSize": size,
            "leading": size * 1.35,
            "textColor": INK,
        } | options
        return ParagraphStyle("", **values)

    def text(self, words: str, size: float = 9, **options: Any) -> Paragraph:
        """A paragraph; line breaks stay."""
        return Paragraph(
            "<br/>".join(escape(line) for line in words.split("\n")), self.style(size, **options)
        )

    def amount(self, value: Decimal) -> str:
        """Every digit."""
        return figure(value, self.places)

    def rate(self) -> str:
        """The rate that was fixed when the statement was made."""
        rate = self.statement.rate
        assert rate is not None  # noqa: S101  # asked where there is one
        return f"1 USD = {rate.normalize():f} {self.statement.shown_currency}"

    def closing(self) -> list[Flowable]:
        """What is to be paid, or left, in the currency of the invoice first."""
        statement = self.statement
        closing = abs(statement.closing)
        words = "Your balance" if statement.closing >= 0 else "To be paid"
        exact = f"exactly {figure(closing, self.places)} USD"
        shown = f"US$ {figure(closing, 2)}"
        if statement.rate is not None:
            shown = f"{statement.shown_currency} {figure(statement.shown(closing), 2)}"
            exact = f"{exact}, {self.rate()}"
        small: Flowable = Spacer(0, 0)
        if self.places > 2 or statement.rate is not None:
            small = self.text(exact, 7.5, textColor=FAINT)
        return [
            self.text(f"{words} at the end of the period", 8.5, textColor=FAINT),
            self.text(shown, 20, bold=True),
            small,
        ]

    def head(self) -> list[Flowable]:
        """Who states what to whom."""
        statement = self.statement
        zone = ZoneInfo(statement.time_zone)
        issuer, _, address = statement.issuer.partition("\n")
        last_day = (statement.ends_at - timedelta(microseconds=1)).astimezone(zone)
        first_day = statement.starts_at.astimezone(zone)
        facts = [
            ("Statement number", statement.number),
            ("Period", f"{first_day:%-d %B %Y} to {last_day:%-d %B %Y}"),
            ("Issued", f"{statement.made_at.astimezone(zone):%-d %B %Y}"),
            ("Currency", f"{statement.currency} (US dollars)"),
            ("Time zone", statement.time_zone),
        ]
        if statement.rate is not None:
            facts.insert(4, ("Invoiced in", f"{statement.shown_currency}, {self.rate()}"))
        if statement.missed_currency:
            missed = f"US dollars: there was no rate for {statement.missed_currency}"
            facts.insert(4, ("Invoiced in", missed))
        rows = [[self.text(name, 8.5, textColor=FAINT), self.text(value, 8.5)] for name, value in facts]
        left = [
            self.text("STATEMENT FOR", 7.5, textColor=FAINT, bold=True),
            self.text(statement.customer, 11, bold=True),
            self.text(statement.organization.slug, 8.5, textColor=FAINT),
        ]
        top = Table(
            [
                [
                    [self.text(issuer, 15, bold=True), self.text(address, 8.5, textColor=FAINT)],
                    self.text("Account statement", 15, alignment=TA_RIGHT, textColor=FAINT),
                ]
            ],
            colWidths=[WIDTH * 0.55, WIDTH * 0.45],
            style=[
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ],
        )
        parties = Table(
            [[left, Table(rows, colWidths=[32 * mm, WIDTH * 0.5 - 32 * mm], style=_TIGHT)]],
            colWidths=[WIDTH * 0.5, WIDTH * 0.5],
            style=_TIGHT,
        )
        return [top, Spacer(0, 9 * mm), parties, Spacer(0, 8 * mm)]

    def summary(self) -> list[Flowable]:
        """From the opening to the closing balance."""
        sums = {
            "Usage": [
                line.amount for line in self.lines if line.kind == "usage" and line.corrects_id is None
            ],
            "Corrections for earlier months": [
                line.amount for line in self.lines if line.kind == "usage" and line.corrects_id
            ],
            "Payments": [line.amount for line in self.lines if line.kind in {"top_up", "code"}],
            "Refunds": [line.amount for line in self.lines if line.kind == "refund"],
            "Promotional credit": [
                line.amount for line in self.lines if line.kind in {"grant", "grant_expiry"}
            ],
            "Adjustments": [line.amount for line in self.lines if line.kind == "adjustment"],
        }
        rows = [("Opening balance", self.amount(self.statement.opening))]
        rows += [(name, self.amount(sum(parts, Decimal(0)))) for name, parts in sums.items() if parts]
        rows.append(("Closing balance", self.amount(self.statement.closing)))
        table = Table(
            [[name, amount] for name, amount in rows],
            colWidths=[WIDTH * 0.31, WIDTH * 0.25],
            style=[
                ("FONT", (0, 0), (-1, -1), self.plain, 8.5),
                ("FONT", (0, -1), (-1, -1), self.bold, 8.5),
                ("TEXTCOLOR", (0, 0), (-1, -1), INK),
                ("ALIGN", (1, 0), (1, -1), "RIGHT"),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
                ("RIGHTPADDING", (1, 0), (1, -1), 0),
                ("LINEABOVE", (0, -1), (-1, -1), 0.6, INK),
            ],
        )
        panel = Table(
            [[self.closing(), table]],
            colWidths=[WIDTH * 0.4, WIDTH * 0.6],
            style=[
                ("BACKGROUND", (0, 0), (-1, -1), PANEL),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                ("LEFTPADDING", (0, 0), (0, 0), 5 * mm),
                ("RIGHTPADDING", (-1, 0), (-1, 0), 5 * mm),
                ("TOPPADDING", (0, 0), (-1, -1), 4 * mm),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 4 * mm),
            ],
        )
        return [panel, Spacer(0, 8 * mm)]

    def section(self, title: str, table: Table) -> list[Flowable]:
        """A table under its title, which it never leaves alone at the foot of a page."""
        heading = self.text(title, 11, bold=True, spaceAfter=2 * mm, keepWithNext=True)
        return [heading, table, Spacer(0, 7 * mm)]

    def table(self, rows: list[list[Any]], widths: list[float], numbers: int) -> Table:
        """Rows under a heading row, the last one a total; the last ``numbers`` columns to the right."""
        return Table(
            rows,
            colWidths=widths,
            repeatRows=1,
            style=[
                ("FONT", (0, 0), (-1, 0), self.bold, 7.5),
                ("TEXTCOLOR", (0, 0), (-1, 0), FAINT),
                ("FONT", (0, 1), (-1, -1), self.plain, 8.5),
                ("TEXTCOLOR", (0, 1), (-1, -1), INK),
                ("FONT", (0, -1), (-1, -1), self.bold, 8.5),
                ("ALIGN", (-numbers, 0), (-1, -1), "RIGHT"),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.6, INK),
                ("LINEBELOW", (0, 1), (-1, -3), 0.3, RULE),
                ("LINEABOVE", (0, -1), (-1, -1), 0.6, INK),
                ("TOPPADDING", (0, 0), (-1, -1), 3),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
            ],
        )

    def usage(self, title: str, lines: list[StatementLine]) -> list[Flowable]:
        """Usage by team and model group; amounts as they were charged."""
        if not lines:
            return []
        rows: list[list[Any]] = [["Team", "Model", "Requests", "Tokens", "Amount, USD"]]
        rows += [
            [
                self.text(line.team, 8.5),
                self.text(line.model_group or "no model", 8.5),
                f"{line.requests:,}",
                f"{line.tokens:,}",
                self.amount(-line.amount),
            ]
            for line in lines
        ]
        total = -sum((line.amount for line in lines), Decimal(0))
        rows.append(
            [
                "Total",
                "",
                f"{sum(line.requests for line in lines):,}",
                f"{sum(line.tokens for line in lines):,}",
                self.amount(total),
            ]
        )
        widths = [WIDTH * share for share in (0.25, 0.24, 0.12, 0.17, 0.22)]
        return self.section(title, self.table(rows, widths, 3))

    def others(self) -> list[Flowable]:
        """Payments, refunds, credit and adjustments, in order of time."""
        lines = [line for line in self.lines if line.kind != "usage"]
        if not lines:
            return []
        zone = ZoneInfo(self.statement.time_zone)
        rows: list[list[Any]] = [["Date", "Kind", "What for", "Amount, USD"]]
        rows += [
            [
                f"{line.posted_at.astimezone(zone):%-d %b %Y}" if line.posted_at else "",
                KINDS.get(line.kind, line.kind),
                self.text(line.description, 8.5),
                self.amount(line.amount),
            ]
            for line in lines
        ]
        rows.append(["Total", "", "", self.amount(sum((line.amount for line in lines), Decimal(0)))])
        widths = [WIDTH * share for share in (0.14, 0.16, 0.48, 0.22)]
        return self.section("Payments, credit and adjustments", self.table(rows, widths, 1))

    def story(self) -> list[Flowable]:
        """Everything, in order."""
        own = [line for line in self.lines if line.kind == "usage" and line.corrects_id is None]
        corrected: dict[int, list[StatementLine]] = {}
        for line in self.lines:
            if line.corrects_id is not None:
                corrected.setdefault(line.corrects_id, []).append(line)
        story = [*self.head(), *self.summary(), *self.usage("Usage by team and model", own)]
        for lines in corrected.values():
            of = lines[0].corrects
            if of is not None:
                story += self.usage(f"Correction for {of.month:%Y-%m} (statement {of.number})", lines)
        story += self.others()
        in_dollars = (
            ""
            if self.statement.rate is None
            else f"What is invoiced in {self.statement.shown_currency} is the exact closing balance converted once, "
            "at the rate of the end of the period, which stays. The account is kept in US dollars, and so is what "
            "the next statement begins with. "
        )
        story.append(
            KeepTogether(
                self.text(
                    f"{in_dollars}Amounts are exact: each request is rounded once, to twelve places, and every "
                    "total is the plain sum of its lines and of the postings in the ledger. Usage that arrives "
                    "after a statement is made appears in the next one as a correction. A statement is never changed.",
                    7.5,
                    textColor=FAINT,
                )
            )
        )
        return story


_TIGHT = [
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 0.5),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 0.5),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
]


def pdf_of(statement: Statement, lines: Sequence[StatementLine]) -> bytes:
    """The document; ``lines`` in order of position, with what they correct."""
    page = _Page(statement, lines)
    issuer = statement.issuer.partition("\n")[0]
    foot = f"{issuer} · {statement.number} · {statement.customer}"
    file = io.BytesIO()
    SimpleDocTemplate(
        file,
        pagesize=A4,
        # The frame on the page has six points of its own.
        leftMargin=MARGIN - 6,
        rightMargin=MARGIN - 6,
        topMargin=18 * mm,
        bottomMargin=20 * mm,
        title=f"Statement {statement.number}",
        author=issuer,
        subject=statement.customer,
        invariant=1,
    ).build(
        page.story(),
        canvasmaker=lambda *arguments, **options: _Numbered(
            *arguments, foot=foot, font=page.plain, **options
        ),
    )
    return file.getvalue()
