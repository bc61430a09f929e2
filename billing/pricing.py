"""What a request costs, exactly: rates, the amount of a request, and the most a request can cost.

The hot path is a price of plain token rates: it pays only for a check or two. What a price has besides
(tiers, a fee, a minimum, rarer classes) is worked out only where it is set or used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from billing.money import EXACT, QUANTUM, rounded
from billing.peak_hours import PeakHours
from billing.token_usage import (
    INPUT_QUANTITIES,
    NO_QUANTITIES,
    OUTPUT_QUANTITIES,
    UNIT_QUANTITIES,
    TokenUsage,
)

ZERO = Decimal(0)
ONE = Decimal(1)

# What a price can name, and how many of it one price is for.
PER_MILLION = 6
PER_ONE = 0
CLASSES: Mapping[str, int] = {
    "input": PER_MILLION,
    "cached_input": PER_MILLION,
    "cache_write": PER_MILLION,
    "cache_write_1h": PER_MILLION,
    "output": PER_MILLION,
    "reasoning": PER_MILLION,
    "audio_input": PER_MILLION,
    "audio_output": PER_MILLION,
    "image_input": PER_MILLION,
    "image_output": PER_MILLION,
    "image": PER_ONE,
    "second": PER_ONE,
    "character": PER_MILLION,
    "search": PER_ONE,
    "request": PER_ONE,
}
# What a class costs that has no price of its own: as much as the next, as far as that goes.
INSTEAD = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "audio_input": "input",
    "audio_output": "output",
    "image_input": "input",
    "image_output": "output",
}
# The price class of each class of `TokenUsage.quantities`.
PRICED_AS = {
    **{name: name for name in (*INPUT_QUANTITIES, *OUTPUT_QUANTITIES)},
    **dict(zip(UNIT_QUANTITIES, ("image", "second", "character", "search"), strict=True)),
}
# The classes an endpoint must have a price for, in any one of these ways; others need input and output.
_NEEDED: Mapping[str, tuple[frozenset[str], ...]] = {
    "embeddings": (frozenset({"input"}),),
    "moderations": (frozenset({"input"}),),
    "rerank": (frozenset({"search"}), frozenset({"input"})),
    "images.generations": (
        frozenset({"image"}),
        frozenset({"input", "output"}),
        frozenset({"input", "image_output"}),
    ),
    "images.edits": (
        frozenset({"image"}),
        frozenset({"input", "output"}),
        frozenset({"input", "image_output"}),
    ),
    "audio.speech": (frozenset({"character"}), frozenset({"second"}), frozenset({"input", "audio_output"})),
    "audio.transcriptions": (frozenset({"second"}), frozenset({"audio_input", "output"})),
    "audio.translations": (frozenset({"second"}), frozenset({"audio_input", "output"})),
}
_TOKENS = (frozenset({"input", "output"}),)

_add = EXACT.add
_multiply = EXACT.multiply
_fma = EXACT.fma


@dataclass(frozen=True, slots=True)
class Billable:
    """So much of one class at a price: ``rate`` US dollars per million or per one, see ``CLASSES``; None
    where nothing prices it, so that it is free."""

    name: str
    quantity: Decimal
    rate: Decimal | None

    @property
    def amount(self) -> Decimal:
        """US dollars, exact."""
        if self.rate is None:
            return ZERO
        return _multiply(self.rate, self.quantity).scaleb(-CLASSES[self.name], context=EXACT)


@dataclass(frozen=True, slots=True)
class Rates:
    """The price row ``price_id``: US dollars for each class of ``CLASSES``.

    The commonest four are fields, ``rare`` holds those others that are set. What ``INSTEAD`` names
    costs as much as another class where it is None; any other class that is None is unpriced. An
    explicit zero is a price. ``minimum`` (US dollars) is the least that a request costs. ``tiers``
    are (tokens, rates) in ascending order: the rates of the last whose tokens a prompt exceeds hold for
    the whole request. In ``peaks``, the first that a moment falls into multiplies all rates. Raises
    ValueError for a negative rate.
    """

    price_id: int
    input: Decimal | None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None
    rare: Mapping[str, Decimal] = field(default_factory=dict)
    minimum: Decimal = ZERO
    tiers: tuple[tuple[int, Rates], ...] = ()
    peaks: tuple[PeakHours, ...] = ()
    # Derived, in US dollars a piece.
    _input: Decimal = field(init=False, repr=False, compare=False)
    _cached: Decimal = field(init=False, repr=False, compare=False)
    _write: Decimal = field(init=False, repr=False, compare=False)
    _output: Decimal = field(init=False, repr=False, compare=False)
    _quantities: Mapping[str, Decimal] = field(init=False, repr=False, compare=False)
    # What reasoning costs more (or less) than other output.
    _reasoning: Decimal = field(init=False, repr=False, compare=False)
    _request: Decimal = field(init=False, repr=False, compare=False)
    _dearest_input: Decimal = field(init=False, repr=False, compare=False)
    _dearest_output: Decimal = field(init=False, repr=False, compare=False)
    # Whether the four rates alone make the amount of a request without rarer quantities.
    _plain: bool = field(init=False, repr=False, compare=False)
    _at_peak: tuple[Rates, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for rate in (self.input, self.cached_input, self.cache_write, self.output, *self.rare.values()):
            if rate is not None and not rate >= 0:
                raise ValueError(f"Price {self.price_id} has a negative rate.")
        if not self.minimum >= 0:
            raise ValueError(f"Price {self.price_id} has a negative minimum.")
        each = {name: self._each(name) for name in CLASSES}
        # The frozen dataclass allows no other way to keep what is derived from its fields.
        keep = object.__setattr__
        keep(self, "_input", each["input"])
        keep(self, "_cached", each["cached_input"])
        keep(self, "_write", each["cache_write"])
        keep(self, "_output", each["output"])
        keep(self, "_quantities", {name: each[of] for name, of in PRICED_AS.items()})
        keep(self, "_reasoning", EXACT.subtract(each["reasoning"], each["output"]))
        keep(self, "_request", each["request"])
        keep(
            self,
            "_dearest_input",
            max(each[name] for name in ("input", "cached_input", "cache_write", *INPUT_QUANTITIES)),
        )
        keep(self, "_dearest_output", max(each[name] for name in ("output", "reasoning", *OUTPUT_QUANTITIES)))
        keep(self, "_plain", not (self.tiers or self._reasoning or self._request or self.minimum))
        keep(self, "_at_peak", tuple(self.times(peak.multiplier) for peak in self.peaks))

    def _each(self, name: str) -> Decimal:
        rate = self.rate(name)
        return ZERO if rate is None else rate.scaleb(-CLASSES[name], context=EXACT)

    def rate(self, name: str) -> Decimal | None:
        """The rate of class ``name`` in US dollars per million or per one; None: unpriced."""
        given: str | None = name
        while given is not None:
            rate: Decimal | None = getattr(self, given) if given in _FIELDS else self.rare.get(given)
            if rate is not None:
                return rate
            given = INSTEAD.get(given)
        return None

    def given(self) -> dict[str, Decimal]:
        """The rates that are set, by class."""
        found = {name: rate for name in _FIELDS if (rate := getattr(self, name)) is not None}
        return {**found, **self.rare}

    def times(self, multiplier: Decimal) -> Rates:
        """The same price with every rate multiplied, in every tier; the minimum stays. Knows no peaks."""

        def more(rate: Decimal | None) -> Decimal | None:
            return None if rate is None else _multiply(rate, multiplier)

        return replace(
            self,
            input=more(self.input),
            cached_input=more(self.cached_input),
            cache_write=more(self.cache_write),
            output=more(self.output),
            rare={name: _multiply(rate, multiplier) for name, rate in self.rare.items()},
            tiers=tuple((above, rates.times(multiplier)) for above, rates in self.tiers),
            peaks=(),
        )

    def during(self, moment: datetime) -> Rates:
        """The rates for a request that began at ``moment``."""
        if not self.peaks:
            return self
        for peak, rates in zip(self.peaks, self._at_peak, strict=True):
            if peak.covers(moment):
                return rates
        return self

    def tier(self, prompt: int) -> Rates:
        """The rates for a prompt of so many tokens."""
        found = self
        for above, rates in self.tiers:
            if prompt <= above:
                break
            found = rates
        return found

    @property
    def priced(self) -> bool:
        """Whether anything is; a row without any rate ends a price."""
        return bool(self.rare) or any(getattr(self, name) is not None for name in _FIELDS)

    def priced_for(self, endpoint: str, classes: Collection[str] = ()) -> bool:
        """Whether all that ``endpoint`` can use has a price, and each of ``classes`` one of its own."""
        needed = _NEEDED.get(endpoint, _TOKENS)
        return any(all(self._own(name) for name in way) for way in needed) and all(
            self._own(name) for name in classes
        )

    def _own(self, name: str) -> bool:
        return (getattr(self, name) if name in _FIELDS else self.rare.get(name)) is not None

    def unpriced(self, usage: TokenUsage, endpoint: str) -> list[str]:
        """The classes of ``usage`` that cost nothing because nothing prices them. Not those which make
        up what ``endpoint`` is priced for in another way, as images may be by their tokens."""
        ways = _NEEDED.get(endpoint, ())
        covered = frozenset[str]().union(*ways) if self.priced_for(endpoint) else frozenset[str]()
        classes = (PRICED_AS[name] for name in usage.quantities)
        return [name for name in classes if self.rate(name) is None and name not in covered]

    def amount(self, usage: TokenUsage) -> Decimal:
        """US dollars for ``usage``, exact and unrounded. Classes without a price count as free."""
        if not self._plain:
            return self._full_amount(usage)
        total = _multiply(self._input, usage.input)
        if usage.output:
            total = _fma(self._output, usage.output, total)
        if usage.cached_input:
            total = _fma(self._cached, usage.cached_input, total)
        if usage.cache_write:
            total = _fma(self._write, usage.cache_write, total)
        if usage.quantities:
            total = self._with_quantities(usage.quantities, total)
        return total

    def _full_amount(self, usage: TokenUsage) -> Decimal:
        rates = self.tier(usage.prompt)
        total = _multiply(rates._input, usage.input)  # noqa: SLF001  # a tier is of the same class
        total = _fma(rates._output, usage.output, total)  # noqa: SLF001
        total = _fma(rates._cached, usage.cached_input, total)  # noqa: SLF001
        total = _fma(rates._write, usage.cache_write, total)  # noqa: SLF001
        total = _fma(rates._reasoning, usage.reasoning, total)  # noqa: SLF001
        total = rates._with_quantities(usage.quantities, _add(total, rates._request))  # noqa: SLF001
        return max(total, rates.minimum)

    def _with_quantities(self, quantities: Mapping[str, Decimal], total: Decimal) -> Decimal:
        for name, quantity in quantities.items():
            total = _fma(self._quantities[name], quantity, total)
        return total

    def billables(self, usage: TokenUsage) -> Iterator[Billable]:
        """What ``amount`` adds up, class by class; without the minimum."""
        rates = self.tier(usage.prompt)
        counts = {
            "input": usage.input,
            "cached_input": usage.cached_input,
            "cache_write": usage.cache_write,
            "output": usage.output,
        }
        if usage.reasoning and rates._own("reasoning"):  # noqa: SLF001  # a tier is of the same class
            counts |= {"output": usage.output - usage.reasoning, "reasoning": usage.reasoning}
        for name, count in counts.items():
            yield Billable(name, Decimal(count), rates.rate(name))
        for name, quantity in usage.quantities.items():
            yield Billable(PRICED_AS[name], quantity, rates.rate(PRICED_AS[name]))
        if rates.rate("request") is not None:
            yield Billable("request", ONE, rates.rate("request"))

    def most(
        self, input_tokens: int, output_tokens: int, units: Mapping[str, Decimal] = NO_QUANTITIES
    ) -> Decimal:
        """US dollars, exact, if all of the input and output falls into its dearest class, and the prompt
        into the dearest tier that it can reach. ``units`` bounds what is counted one by one."""
        if self._plain and not units:
            return _fma(self._dearest_output, output_tokens, _multiply(self._dearest_input, input_tokens))
        dearest = self._most(input_tokens, output_tokens, units)
        for above, rates in self.tiers:
            if input_tokens > above:
                dearest = max(dearest, rates._most(input_tokens, output_tokens, units))  # noqa: SLF001
        return dearest

    def _most(self, input_tokens: int, output_tokens: int, units: Mapping[str, Decimal]) -> Decimal:
        total = _fma(self._dearest_output, output_tokens, _multiply(self._dearest_input, input_tokens))
        if units:
            total = self._with_quantities(units, total)
        if self._plain:
            return total
        return max(_add(total, self._request), self.minimum)


_FIELDS = frozenset({"input", "cached_input", "cache_write", "output"})


def charge_of(
    usage: TokenUsage, cost_rates: Rates, price_rates: Rates | None, markup: Decimal
) -> tuple[Decimal, Decimal]:
    """``(cost, charge)`` of ``usage`` in US dollars, each rounded once.

    The cost follows the provider's rates. The charge follows the model group's own rates where it
    has some, and is otherwise the cost times ``1 + markup`` (a share: 0.2 adds a fifth).
    """
    exact_cost = cost_rates.amount(usage)
    cost = rounded(exact_cost)
    if price_rates is not None:
        return cost, rounded(price_rates.amount(usage))
    if not markup:
        return cost, cost
    return cost, rounded(_multiply(exact_cost, _add(ONE, markup)))


def worst_case(
    input_tokens: int,
    output_tokens: int,
    cost_rates: Rates,
    price_rates: Rates | None,
    markup: Decimal,
    units: Mapping[str, Decimal] = NO_QUANTITIES,
) -> Decimal:
    """The most that a request of so much can be charged, in US dollars, rounded up.

    This is what a reservation takes, so the charge of a request that keeps to its estimate fits.
    """
    if price_rates is not None:
        most = price_rates.most(input_tokens, output_tokens, units)
    else:
        most = _multiply(cost_rates.most(input_tokens, output_tokens, units), _add(ONE, markup))
    return most.quantize(QUANTUM, rounding=ROUND_CEILING, context=EXACT)
