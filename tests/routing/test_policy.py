"""The order of candidates: pure, so each case is a few values."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Any

import pytest

from routing.kinds import KINDS
from routing.policy import Candidate, Need, NoCandidate, Signals, fallbacks, order
from routing.table import DeploymentSpec, GroupSpec, Member, ProviderSpec, RoutingTable, Rule

PROVIDER = ProviderSpec(1, "p", KINDS["generic"], "http://x", 1, 1, 1, 1)


def deployment(name: str, **options: Any) -> DeploymentSpec:
    values = {"context_window": None, "max_output_tokens": None, "capabilities": None, **options}
    return DeploymentSpec(hash(name) % 1_000_003, name, name, PROVIDER, **values)


def group(name: str, *members: Member, **options: Any) -> GroupSpec:
    values: dict[str, Any] = {
        "strategy": "priority",
        "on_error": (),
        "on_context_window": (),
        "on_content_filter": (),
        "rules": (),
        **options,
    }
    return GroupSpec(hash(name) % 1_000_003, name, 0, members=members, **values)


def table(*groups: GroupSpec) -> RoutingTable:
    return RoutingTable(MappingProxyType({each.name: each for each in groups}))


def signals(**known: Any) -> Signals:
    costs, busy, latency = known.get("cost", {}), known.get("busy", {}), known.get("latency", {})
    return Signals(
        lambda d: costs.get(d.name, Decimal(1)),
        lambda d: busy.get(d.name, 0),
        lambda d: latency.get(d.name, 0.0),
        lambda d: d.name in known.get("due", ()),
        lambda d: d.name not in known.get("resting", ()),
    )


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.deployment.name for candidate in candidates]


def run(
    main: GroupSpec, *others: GroupSpec, need: Need | None = None, seed: int = 1, **known: Any
) -> list[str]:
    permitted = known.pop("permitted", lambda _name: True)
    return names(order(table(main, *others), main, need or Need(), signals(**known), Random(seed), permitted))


A, B, C = deployment("a"), deployment("b"), deployment("c")


def test_priority_goes_from_the_lowest_number_up() -> None:
    assert run(group("g", Member(A, 3, 1), Member(B, 1, 1), Member(C, 2, 1))) == ["b", "c", "a"]


def test_weights_share_the_first_place_in_proportion() -> None:
    weighted = group("g", Member(A, 1, 1), Member(B, 1, 3), strategy="weighted")
    first = Counter(run(weighted, seed=seed)[0] for seed in range(4000))
    # Three of four; the standard deviation of this count is 27.
    assert 2850 < first["b"] < 3150


def test_equal_priorities_are_shared_by_weight_too() -> None:
    equal = group("g", Member(A, 1, 1), Member(B, 1, 1))
    first = Counter(run(equal, seed=seed)[0] for seed in range(400))
    assert 140 < first["a"] < 260


def test_weight_zero_drains() -> None:
    assert run(group("g", Member(A, 1, 0), Member(B, 2, 1))) == ["b"]


def test_all_drained_is_no_candidate() -> None:
    with pytest.raises(NoCandidate) as caught:
        run(group("g", Member(A, 1, 0)))
    assert caught.value.reason == "empty"


def test_cheapest_goes_by_what_this_request_would_cost() -> None:
    cheap = group("g", Member(A, 1, 1), Member(B, 1, 1), strategy="cheapest")
    assert run(cheap, cost={"a": Decimal(2), "b": Decimal("0.5")}) == ["b", "a"]


def test_an_explicit_price_of_zero_is_cheapest() -> None:
    cheap = group("g", Member(A, 1, 1), Member(B, 1, 1), strategy="cheapest")
    assert run(cheap, cost={"a": Decimal(0), "b": Decimal("0.5")}) == ["a", "b"]


def test_least_busy_counts_requests_in_flight_by_weight() -> None:
    busy = group("g", Member(A, 1, 1), Member(B, 1, 4), strategy="least_busy")
    assert run(busy, busy={"a": 1, "b": 3}) == ["b", "a"]


def test_fastest_prefers_the_quicker_of_two() -> None:
    fast = group("g", Member(A, 1, 1), Member(B, 1, 1), strategy="fastest")
    assert all(run(fast, seed=seed, latency={"a": 2.0, "b": 0.1})[0] == "b" for seed in range(20))


def test_what_is_not_priced_is_not_tried() -> None:
    assert run(group("g", Member(A, 1, 1), Member(B, 2, 1)), cost={"a": None}) == ["b"]


def test_nothing_priced_is_no_candidate() -> None:
    with pytest.raises(NoCandidate) as caught:
        run(group("g", Member(A, 1, 1)), cost={"a": None})
    assert caught.value.reason == "unpriced"


def test_a_missing_capability_removes_a_deployment() -> None:
    blind = deployment("blind", capabilities=frozenset({"tools"}))
    seeing = deployment("seeing", capabilities=frozenset({"tools", "vision"}))
    need = Need(capabilities=frozenset({"vision"}))
    assert run(group("g", Member(blind, 1, 1), Member(seeing, 2, 1)), need=need) == ["seeing"]


def test_a_prompt_far_beyond_the_window_is_not_sent() -> None:
    small = deployment("small", context_window=1000)
    with pytest.raises(NoCandidate) as caught:
        run(group("g", Member(small, 1, 1)), need=Need(input_tokens=5000))
    assert caught.value.reason == "context_window"


def test_a_rule_redirects_to_another_group() -> None:
    rule = Rule(MappingProxyType({"input_tokens_over": 100}), "long", None)
    main = group("g", Member(A, 1, 1), rules=(rule,))
    assert run(main, group("long", Member(B, 1, 1)), need=Need(input_tokens=101)) == ["b"]
    assert run(main, group("long", Member(B, 1, 1)), need=Need(input_tokens=100)) == ["a"]


def test_a_rule_narrows_to_named_deployments() -> None:
    rule = Rule(MappingProxyType({"needs": ["vision"]}), None, frozenset({"b"}))
    main = group("g", Member(A, 1, 1), Member(B, 2, 1), rules=(rule,))
    assert run(main, need=Need(capabilities=frozenset({"vision"}))) == ["b"]


def test_an_unknown_condition_never_matches() -> None:
    rule = Rule(MappingProxyType({"moon": "full"}), "long", None)
    assert run(group("g", Member(A, 1, 1), rules=(rule,)), group("long", Member(B, 1, 1))) == ["a"]


def test_fallback_groups_come_after_the_group_and_each_deployment_once() -> None:
    main = group("g", Member(A, 1, 1), on_error=("backup",))
    assert run(main, group("backup", Member(A, 1, 1), Member(B, 2, 1))) == ["a", "b"]


def test_a_fallback_the_key_may_not_use_is_passed_over() -> None:
    main = group("g", Member(A, 1, 1), on_error=("backup",))
    assert run(main, group("backup", Member(B, 1, 1)), permitted=lambda name: name != "backup") == ["a"]


def test_a_fallback_serves_where_the_group_itself_cannot() -> None:
    main = group("g", Member(A, 1, 1), on_error=("backup",))
    assert run(main, group("backup", Member(B, 1, 1)), cost={"a": None}) == ["b"]


def test_whoever_may_not_be_asked_now_comes_after_everybody_else() -> None:
    main = group("g", Member(A, 1, 1), Member(B, 2, 1), on_error=("backup",))
    assert run(main, group("backup", Member(C, 1, 1)), resting={"a"}) == ["b", "c", "a"]


def test_fastest_looks_again_at_the_slow_one_that_was_not_asked_for_a_while() -> None:
    fast = group("g", Member(A, 1, 1), Member(B, 1, 1), Member(C, 1, 1), strategy="fastest")
    slow = {"a": 2.0, "b": 0.1, "c": 0.1}
    assert run(fast, latency=slow, due={"a"})[0] == "a"
    assert run(fast, latency=slow, due={"b"})[-1] == "a"
    assert run(fast, latency=slow, due={"a"}, resting={"a"})[-1] == "a"


def test_fastest_gives_the_unmeasured_their_share() -> None:
    fast = group("g", Member(A, 1, 1), Member(B, 1, 1), strategy="fastest")
    first = Counter(run(fast, seed=seed, latency={"a": 2.0})[0] for seed in range(400))
    assert 140 < first["b"] < 260


def test_rules_in_a_circle_end() -> None:
    there = Rule(MappingProxyType({}), "h", None)
    back = Rule(MappingProxyType({}), "g", None)
    assert run(group("g", Member(A, 1, 1), rules=(there,)), group("h", Member(B, 1, 1), rules=(back,))) in (
        ["a"],
        ["b"],
    )


def test_fallbacks_after_a_refusal_leave_out_what_was_tried() -> None:
    found = fallbacks(
        table(group("long", Member(A, 1, 1), Member(B, 2, 1))),
        ["long"],
        Need(),
        signals(),
        Random(1),
        lambda _name: True,
        {A.id},
    )
    assert names(found) == ["b"]
