"""The configuration file's sections and fields. A field that is not here is refused."""

from __future__ import annotations

from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.configuration.document import Document
from gateway.configuration.problems import Path, Problem
from gateway.configuration.scalars import (
    Address,
    Amount,
    ContentDays,
    Currency,
    DetailDays,
    Email,
    HideableHeader,
    KindName,
    Markup,
    Moment,
    Network,
    OrganizationRole,
    Origin,
    Position,
    Region,
    Seconds,
    Secret,
    Share,
    Slug,
    Strategy,
    StructuredOutput,
    TeamRole,
    Text,
    TimeZone,
    Tokens,
    UnsupportedParams,
    Word,
)
from routing.kinds import KINDS
from routing.links import Ability, Block, Count, FallbacksBlock, RuleBlock
from tenants.keys import check as check_secret

Regions = Annotated[list[Region], Field(min_length=1)]


class Timeouts(Block):
    """Seconds."""

    connect: Seconds = 5
    first_token: Seconds = 60
    idle: Seconds = 30
    total: Seconds = 600


class ProviderBlock(Block):
    """A service that answers requests."""

    name: Word
    kind: KindName
    base_url: Address | None = None
    credentials: list[Secret] = []
    timeouts: Timeouts = Timeouts()

    @model_validator(mode="after")
    def _reachable(self) -> ProviderBlock:
        kind = KINDS[self.kind]
        if self.base_url is None and not kind.base_url:
            raise ValueError(f"base_url is missing, and kind {self.kind} has no default")
        if self.kind != "azure" and "?" in (self.base_url or ""):
            raise ValueError("base_url may have an api-version only for kind azure")
        if kind.needs_credential and not self.credentials:
            raise ValueError(f"credentials are missing, and kind {self.kind} needs one")
        return self


class RatesBlock(Block):
    """US dollars: per million tokens or characters, per single image, second, search and request."""

    input: Amount | None = None
    cached_input: Amount | None = None
    cache_write: Amount | None = None
    cache_write_1h: Amount | None = None
    output: Amount | None = None
    reasoning: Amount | None = None
    audio_input: Amount | None = None
    audio_output: Amount | None = None
    image_input: Amount | None = None
    image_output: Amount | None = None
    image: Amount | None = None
    second: Amount | None = None
    character: Amount | None = None
    search: Amount | None = None
    request: Amount | None = None


class TierBlock(RatesBlock):
    """The rates of requests whose prompt has more tokens than ``above``."""

    above: Tokens


class PeakBlock(Block):
    """Hours of the day in which all rates are multiplied."""

    start: str
    end: str
    time_zone: TimeZone = "UTC"
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = []
    multiplier: Amount


class PriceBlock(RatesBlock):
    """A price: what it names costs so much, and what it does not name is not served."""

    minimum: Amount | None = None
    tiers: list[TierBlock] = []
    peaks: list[PeakBlock] = []

    @model_validator(mode="after")
    def _says_something(self) -> PriceBlock:
        tokens = self.cached_input, self.cache_write, self.output
        if self.input is None and any(rate is not None for rate in tokens):
            raise ValueError("names other tokens, so input is missing")
        if all(getattr(self, name) is None for name in RatesBlock.model_fields):
            raise ValueError("must name a price, such as input")
        return self


# In place of a cost: `manage.py sync_prices` sets it.
CATALOGUE = "catalogue"


def _cost(value: Any) -> Any:
    if value is None:
        raise ValueError(f"must be a price or {CATALOGUE}")
    return None if value == CATALOGUE else value


class DeploymentBlock(Block):
    """One model at one provider."""

    name: Word
    provider: str
    model: Text
    context_window: Tokens | None = None
    max_output_tokens: Tokens | None = None
    capabilities: list[Ability] | None = None
    region: Region | None = None
    # None: left to `manage.py sync_prices`.
    cost: Annotated[PriceBlock | None, BeforeValidator(_cost)]


class PlaceBlock(Block):
    """A deployment's place in a model group."""

    name: str
    priority: Position = 1
    weight: Position = 1


class GroupBlock(Block):
    """A name that clients send as ``model``."""

    name: Word
    strategy: Strategy = "priority"
    deployments: list[PlaceBlock] = []
    fallbacks: FallbacksBlock = FallbacksBlock()
    rules: list[RuleBlock] = []
    max_cost: Amount | None = None
    regions: Regions | None = None
    pin: bool = True
    affinity: bool = True
    hedge: bool = False
    resume: bool = False
    structured_output: StructuredOutput = "repair"
    validate_tools: bool = False
    unsupported_params: UnsupportedParams = "map"
    price: PriceBlock | None = None


class BudgetBlock(Block):
    """US dollars a period."""

    amount: Amount
    period: Literal["day", "week", "month", "total"]
    hard: bool = True
    alert_at: list[Share] = []


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class LimitsBlock(Block):
    """Limits on everything, or on one model group. ``budget`` is one, or some with different periods."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    budget: Annotated[list[BudgetBlock], BeforeValidator(_as_list)] = []

    @field_validator("budget")
    @classmethod
    def _different_periods(cls, budgets: list[BudgetBlock]) -> list[BudgetBlock]:
        if len({budget.period for budget in budgets}) < len(budgets):
            raise ValueError("two budgets have the same period")
        return budgets


class QuotasBlock(LimitsBlock):
    """Limits; ``model_groups`` has further ones for the requests of one group each, by its name."""

    model_groups: dict[str, LimitsBlock] = {}


class PlanBlock(Block):
    """What an organization gets by default."""

    name: Slug
    model_groups: list[str] | None = None
    quotas: QuotasBlock = QuotasBlock()


class UserBlock(Block):
    """A member of an organization."""

    email: Email
    role: OrganizationRole = "member"
    password: Secret | None = None
    quotas: QuotasBlock = QuotasBlock()


class TeamMemberBlock(Block):
    """A member of a team."""

    email: Email
    role: TeamRole = "member"


class KeyBlock(Block):
    """An API key of a team."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    secret: Secret | None = None
    owner: Email | None = None
    expires_at: Moment | None = None
    allowed_ips: list[Network] | None = None
    model_groups: list[str] | None = None
    quotas: QuotasBlock = QuotasBlock()

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: str | None) -> str | None:
        return None if secret is None else check_secret(secret)


class TeamBlock(Block):
    """A team of an organization."""

    slug: Slug
    name: Text
    model_groups: list[str] | None = None
    quotas: QuotasBlock = QuotasBlock()
    members: list[TeamMemberBlock] = []
    keys: list[KeyBlock] = []


class OrganizationBlock(Block):
    """A tenant."""

    slug: Slug
    name: Text
    plan: str | None = None
    time_zone: TimeZone = "UTC"
    billing: Literal["prepaid", "postpaid"] = "postpaid"
    credit_limit: Amount | None = None
    balance: Amount | None = None
    markup: Markup = Decimal(0)
    currency: Currency = "USD"
    lower_max_tokens: bool = False
    store_responses: bool = False
    keep_details_days: DetailDays | None = None
    log_content: bool = False
    content_days: ContentDays = 30
    prices: dict[str, PriceBlock] = {}
    model_groups: list[str] | None = None
    regions: Regions | None = None
    hidden_headers: list[HideableHeader] = []
    cors_origins: list[Origin] = []
    quotas: QuotasBlock = QuotasBlock()
    end_user_quotas: QuotasBlock = QuotasBlock()
    users: list[UserBlock] = []
    teams: list[TeamBlock] = []

    @model_validator(mode="after")
    def _terms(self) -> OrganizationBlock:
        if self.billing == "prepaid" and self.credit_limit is not None:
            raise ValueError("a prepaid organization never goes below zero, so it has no credit_limit")
        return self


class ExchangeRateBlock(Block):
    """How much of a currency one US dollar is, from a date on."""

    currency: Currency
    rate: Amount
    effective_from: Moment


class Configuration(Block):
    """The whole file."""

    exchange_rates: list[ExchangeRateBlock] = []
    providers: list[ProviderBlock] = []
    deployments: list[DeploymentBlock] = []
    model_groups: list[GroupBlock] = []
    plans: list[PlanBlock] = []
    organizations: list[OrganizationBlock] = []


def _names_at(path: Path) -> list[str]:
    """The fields known at ``path``, to suggest one for a misspelt name."""
    block: type[Block] = Configuration
    for part in path:
        if isinstance(part, int) or part not in block.model_fields:
            continue
        found = _blocks_in(block.model_fields[part].annotation)
        if not found:
            return []
        block = found[0]
    return list(block.model_fields)


def _blocks_in(annotation: Any) -> list[type[Block]]:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return [annotation]
    return [block for each in getattr(annotation, "__args__", ()) for block in _blocks_in(each)]


def _path(document: Document, location: tuple[int | str, ...]) -> Path:
    """Pydantic's location as a path of the file, where one budget stands for a list of one."""
    path: Path = ()
    for part in location:
        if path and path[-1] == "budget" and part == 0 and (*path, 0) not in document.lines:
            continue
        path = (*path, part)
    return path


def _message(error: Any, path: Path) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            near = get_close_matches(str(path[-1]), known := _names_at(path[:-1]), 1)
            said = f"did you mean {near[0]}?" if near else f"the fields here are {', '.join(known)}"
            return f"is not a known field; {said}"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
        case "model_type" | "model_attributes_type":
            return "must be a mapping of fields"
        case _:
            said = str(error["msg"])
            return (said[0].lower() + said[1:]).replace("input should be", "must be")


def check(document: Document) -> tuple[Configuration | None, list[Problem]]:
    """The document as a configuration; None and every problem if it is none."""
    try:
        return Configuration.model_validate(document.values), []
    except ValidationError as error:
        found = []
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            path = _path(document, each["loc"])
            found.append(document.problem(path, _message(each, path)))
        return None, found
