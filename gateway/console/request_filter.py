"""What narrows the request list beside days, team, key, user and model: status, end, charge and tag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Q

from billing.tagged import Tag
from gateway.usage_query import BadQuery

STATUSES: dict[str, tuple[str, Q]] = {
    "ok": ("Succeeded", Q(status__lt=400)),
    "failed": ("All failures", Q(status__gte=400)),
    "429": ("Refused by a limit (429)", Q(status=429)),
    "4xx": ("Client errors (4xx)", Q(status__gte=400, status__lt=500)),
    "5xx": ("Server errors (5xx)", Q(status__gte=500)),
}
# What each end means, in the words of the page.
ENDS = {
    "completed": ("Completed", "good", "The whole answer reached the client."),
    "replay": (
        "Replayed",
        "good",
        "The answer of an earlier request with the same Idempotency-Key, given again. You are not charged.",
    ),
    "client_gone": ("Client left", "warn", "The client closed the connection before the end."),
    "provider_error": ("Provider error", "bad", "Every provider that was tried failed."),
    "timeout": ("Timeout", "bad", "The provider did not answer in time."),
    "cut": (
        "Cut off",
        "bad",
        "The provider's stream broke after its first content; what had arrived was passed on.",
    ),
    "refused": ("Refused", "warn", "This gateway refused the request before it reached a provider."),
    "invalid": ("Invalid", "warn", "The request could not be served as it was."),
    "interrupted": ("Interrupted", "bad", "The gateway itself stopped in the middle. You are not charged."),
    "gateway_error": ("Gateway error", "bad", "A defect of the gateway. You are not charged."),
}

_DOLLARS = re.compile(r"\d{1,9}(\.\d{1,12})?")


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """The filters in force, by name as they were written, and as a condition on events."""

    kept: dict[str, str]
    # Without that of the tag.
    where: Q
    tag: Tag | None

    @property
    def condition(self) -> Q:
        """All of it."""
        return self.where & self.tag.condition if self.tag else self.where

    def labels(self) -> dict[str, str]:
        """What each of ``kept`` says, in words."""
        words = {}
        for name, value in self.kept.items():
            if name == "status":
                words[name] = STATUSES[value][0]
            elif name == "end":
                words[name] = ENDS[value][0]
            elif name == "tag":
                words[name] = f"without {self.tag.name}" if self.tag and not self.tag.value else value
            else:
                words[name] = f"at least ${value}"
        return words


NO_FILTER = RequestFilter({}, Q(), None)


def request_filter(parameters: Mapping[str, str]) -> RequestFilter:
    """What ``parameters`` ask for. Raises ``BadQuery``."""
    where, kept = Q(), dict[str, str]()
    status, end, charge, text = (
        parameters.get(name, "").replace("\x00", "").strip() for name in ("status", "end", "charge", "tag")
    )
    if status:
        if status not in STATUSES:
            raise BadQuery(f"status: use one of {', '.join(STATUSES)}.")
        where &= STATUSES[status][1]
        kept["status"] = status
    if end:
        if end not in ENDS:
            raise BadQuery(f"end: use one of {', '.join(ENDS)}.")
        where &= Q(end_reason=end)
        kept["end"] = end
    if charge:
        if not _DOLLARS.fullmatch(charge):
            raise BadQuery("charge: write US dollars, such as 0.05.")
        where &= Q(charge__gte=Decimal(charge))
        kept["charge"] = charge
    tag = None
    if text:
        try:
            tag = Tag.read(text)
        except ValueError as error:
            raise BadQuery(f"tag: {error}") from None
        kept["tag"] = str(tag)
    return RequestFilter(kept, where, tag)
