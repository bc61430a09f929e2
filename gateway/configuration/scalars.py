"""The kinds of value a configuration file holds, each with a message for what is not one."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from pydantic import AfterValidator, BeforeValidator, Field

from billing.calendars import zone
from routing.exactness import STRUCTURED_OUTPUT, UNSUPPORTED_PARAMS
from routing.kinds import KINDS
from routing.links import one_of
from routing.models import name_validator, region_validator
from routing.strategies import STRATEGIES
from tenants.models import (
    HIDEABLE_HEADERS,
    LEAST_DETAIL_DAYS,
    MOST_CONTENT_DAYS,
    MOST_DETAIL_DAYS,
    origin_validator,
    slug_validator,
)
from tenants.permissions import ORGANIZATION_ROLES, TEAM_ROLES
from tenants.services.keys import networks

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?\Z")


def _decimal(value: Any) -> Decimal:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'must be a quoted decimal: write "{value}" with the quotes')  # noqa: TRY004 - pydantic reports ValueError
    if not isinstance(value, str):
        raise ValueError('must be a quoted decimal, such as "0.25"')  # noqa: TRY004 - likewise
    if not _DECIMAL.match(value):
        raise ValueError('must be a decimal of 0 or more with at most twelve places, such as "0.25"')
    return Decimal(value)


def _whole_share(value: Decimal) -> Decimal:
    if not 0 < value <= 10 or value != value.quantize(Decimal("0.0001")):
        raise ValueError('must be a share of the budget above 0 with at most four places, such as "0.8"')
    return value


def _markup(value: Decimal) -> Decimal:
    if value >= 1000 or value != value.quantize(Decimal("0.000001")):
        raise ValueError('must be a share below 1000 with at most six places, such as "0.20" for a fifth')
    return value


def _word(value: str) -> str:
    try:
        name_validator(value)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from None
    return value


def _region(value: str) -> str:
    try:
        region_validator(value)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from None
    return value


def _slug(value: str) -> str:
    try:
        slug_validator(value)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from None
    return value


def _origin(value: str) -> str:
    try:
        origin_validator(value)
    except ValidationError as error:
        raise ValueError(error.messages[0]) from None
    return value


def _email(value: str) -> str:
    try:
        validate_email(value)
    except ValidationError:
        raise ValueError("must be an e-mail address") from None
    return value.lower()


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        named = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    # Azure's resources are told apart from its newer API by their version (routing.dialects.openai).
    query = re.sub(r"^api-version=[\w.-]+$", "", parts.query) if named else ""
    if not named or query or parts.fragment or parts.username is not None or len(value) > 500:
        raise ValueError("must be an http or https address without user, query or fragment")
    return value.rstrip("/")


def _currency(value: str) -> str:
    if not re.fullmatch("[A-Z]{3}", value):
        raise ValueError("must be a currency's three letters, such as EUR")
    return value


def _time_zone(value: str) -> str:
    zone(value)
    return value


def _network(value: str) -> str:
    return (networks([value]) or [])[0]


def _moment(value: Any) -> date | datetime:
    """A date, or a moment with its offset from UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if "T" in value else date.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("must say its offset, such as 2027-12-31T18:00:00Z, or be a date alone")
        return value.astimezone(UTC)
    if not isinstance(value, date):
        raise ValueError("must be a date, such as 2027-12-31")  # noqa: TRY004 - pydantic reports ValueError
    return value


Amount = Annotated[Decimal, BeforeValidator(_decimal)]
Share = Annotated[Decimal, BeforeValidator(_decimal), AfterValidator(_whole_share)]
Markup = Annotated[Decimal, BeforeValidator(_decimal), AfterValidator(_markup)]
Currency = Annotated[str, AfterValidator(_currency)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Secret = Annotated[str, Field(min_length=1, max_length=10_000)]
Word = Annotated[str, AfterValidator(_word)]
Region = Annotated[str, AfterValidator(_region)]
Slug = Annotated[str, AfterValidator(_slug)]
Email = Annotated[str, Field(max_length=254), AfterValidator(_email)]
Address = Annotated[str, AfterValidator(_address)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Network = Annotated[str, AfterValidator(_network)]
Moment = Annotated[date | datetime, BeforeValidator(_moment)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
ContentDays = Annotated[int, Field(ge=1, le=MOST_CONTENT_DAYS)]
DetailDays = Annotated[int, Field(ge=LEAST_DETAIL_DAYS, le=MOST_DETAIL_DAYS)]
Tokens = Annotated[int, Field(ge=1, le=2_147_483_647)]
Position = Annotated[int, Field(ge=0, le=2_147_483_647)]
KindName = Annotated[str, one_of(*KINDS)]
Strategy = Annotated[str, one_of(*STRATEGIES)]
StructuredOutput = Annotated[str, one_of(*STRUCTURED_OUTPUT)]
UnsupportedParams = Annotated[str, one_of(*UNSUPPORTED_PARAMS)]
Origin = Annotated[str, Field(max_length=255), AfterValidator(_origin)]
HideableHeader = Annotated[str, one_of(*HIDEABLE_HEADERS)]
OrganizationRole = Annotated[str, one_of(*(role.value for role in ORGANIZATION_ROLES))]
TeamRole = Annotated[str, one_of(*(role.value for role in TEAM_ROLES))]
