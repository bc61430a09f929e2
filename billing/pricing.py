"""What tokens cost, exactly: rates, the amount of a request, and the most a request can cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from billing.money import EXACT, QUANTUM, rounded
from billing.token_usage import TokenUsage

ZERO = Decimal(0)
ONE = Decimal(1)
EMBEDDINGS = "embeddings"

_add = EXACT.add
_multiply = EXACT.multiply
_fma = EXACT.fma


def _per_token(rate: Decimal | None, instead: Decimal) -> Decimal:
    """US dollars per token; ``instead`` where ``rate`` (per million) is not set."""
    return instead if rate is None else rate.scaleb(-6, context=EXACT)


@dataclass(frozen=True, slots=True)
class Rates:
    """The price row ``price_id``: US dollars per million tokens of each class.

    Where ``cached_input`` or ``cache_write`` is None, such tokens cost what ``input`` costs. A None
    ``input`` means that nothing is priced; a None ``output`` that only embeddings are. An explicit
    zero is a price. Raises ValueError for a negative rate.
    """

    price_id: int
    input: Decimal | None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None
    _input: Decimal = field(init=False, repr=False, compare=False)
    _cached: Decimal = field(init=False, repr=False, compare=False)
    _write: Decimal = field(init=False, repr=False, compare=False)
    _output: Decimal = field(init=False, repr=False, compare=False)
    _dearest_input: Decimal = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for rate in (self.input, self.cached_input, self.cache_write, self.output):
            if rate is not None and not rate >= 0:
                raise ValueError(f"Price {self.price_id} has a negative rate.")
        plain_input = _per_token(self.input, ZERO)
        cached = _per_token(self.cached_input, plain_input)
        write = _per_token(self.cache_write, plain_input)
        # The frozen dataclass allows no other way to keep what is derived from its fields.
        keep = object.__setattr__
        keep(self, "_input", plain_input)
        keep(self, "_cached", cached)
        keep(self, "_write", write)
        keep(self, "_output", _per_token(self.output, ZERO))
        keep(self, "_dearest_input", max(plain_input, cached, write))

    def priced_for(self, endpoint: str) -> bool:
        """Whether every class of tokens that ``endpoint`` can use has a price."""
        return self.input is not None and (self.output is not None or endpoint == EMBEDDINGS)

    def amount(self, usage: TokenUsage) -> Decimal:
        """US dollars for ``usage``, exact and unrounded. Classes without a price count as free."""
        total = _multiply(self._input, usage.input)
        if usage.output:
            total = _fma(self._output, usage.output, total)
        if usage.cached_input:
            total = _fma(self._cached, usage.cached_input, total)
        if usage.cache_write:
            total = _fma(self._write, usage.cache_write, total)
        return total

    def most(self, input_tokens: int, output_tokens: int) -> Decimal:
        """US dollars, exact, if all of the input falls into the dearest input class."""
        return _fma(self._output, output_tokens, _multiply(self._dearest_input, input_tokens))


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
    input_tokens: int, output_tokens: int, cost_rates: Rates, price_rates: Rates | None, markup: Decimal
) -> Decimal:
    """The most that a request of so many tokens can be charged, in US dollars, rounded up.

    This is what a reservation takes, so the charge of a request that keeps to its estimate fits.
    """
    if price_rates is not None:
        most = price_rates.most(input_tokens, output_tokens)
    else:
        most = _multiply(cost_rates.most(input_tokens, output_tokens), _add(ONE, markup))
    return most.quantize(QUANTUM, rounding=ROUND_CEILING, context=EXACT)
