"""The order of candidates: pure, so each case is a few values."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Any

import pytest

from routing.kinds import KINDS
from routing.policy import Candidate, Need, NoCandidate, Signals, explain, fallbacks, order, pinned
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
        charge=lambda g, d: known.get("charge", {}).get((g.name, d.name), Decimal(1)),
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


def test_a_rule_on_the_region_asks_that_the_request_must_stay_within_it() -> None:
    rule = Rule(MappingProxyType({"region": ["eu", "ch"]}), "european", None)
    here, there = deployment("here", region="eu"), deployment("there", region="us")
    main = group("g", Member(there, 1, 1), Member(here, 2, 1), rules=(rule,))
    european = group("european", Member(here, 1, 1))

    def first(*regions: str) -> str:
        need = Need(regions=frozenset(regions) if regions else None)
        return str(
            order(table(main, european), main, need, signals(), Random(1), lambda _name: True)[0].group.name
        )

    assert [first("eu"), first("eu", "ch")] == ["european", "european"]
    assert [first("eu", "us"), first()] == ["g", "g"]


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


def test_what_may_cost_the_caller_more_than_its_ceiling_is_removed() -> None:
    main = group("g", Member(A, 1, 1), Member(B, 2, 1))
    dear = {("g", "a"): Decimal("0.05"), ("g", "b"): Decimal("0.02")}
    assert run(main, need=Need(max_cost=Decimal("0.02")), charge=dear) == ["b"]
    assert run(main, need=Need(max_cost=Decimal("0.05")), charge=dear) == ["a", "b"]


def test_a_ceiling_that_nothing_meets_is_told_with_the_cheapest() -> None:
    main = group("g", Member(A, 1, 1), Member(B, 2, 1), max_cost=Decimal("0.0100"))
    dear = {("g", "a"): Decimal("0.05"), ("g", "b"): Decimal("0.020")}
    with pytest.raises(NoCandidate) as caught:
        run(main, charge=dear)
    assert caught.value.reason == "max_cost"
    assert "is $0.01, and the cheapest deployment for it may cost up to $0.02." in str(caught.value)


@pytest.mark.parametrize(("own", "told"), [("0.01", "1"), ("1", "0.01")])
def test_the_lower_of_two_ceilings_counts(own: str, told: str) -> None:
    main = group("g", Member(A, 1, 1), max_cost=Decimal(own))
    with pytest.raises(NoCandidate):
        run(main, need=Need(max_cost=Decimal(told)), charge={("g", "a"): Decimal("0.05")})


def test_the_ceiling_of_the_group_asked_for_holds_for_its_fallbacks_by_their_price() -> None:
    main = group("g", Member(A, 1, 1), on_error=("backup",), max_cost=Decimal("0.05"))
    backup = group("backup", Member(B, 1, 1), Member(C, 2, 1), max_cost=Decimal(9))
    dear = {("g", "a"): Decimal("0.05"), ("backup", "b"): Decimal("0.06"), ("backup", "c"): Decimal("0.04")}
    assert run(main, backup, charge=dear) == ["a", "c"]


EU, US, NOWHERE = deployment("eu", region="eu"), deployment("us", region="us"), deployment("nowhere")


def test_only_deployments_in_an_allowed_region_are_tried() -> None:
    main = group("g", Member(US, 1, 1), Member(NOWHERE, 2, 1), Member(EU, 3, 1))
    assert run(main, need=Need(regions=frozenset({"eu"}))) == ["eu"]
    assert run(main, need=Need(regions=frozenset({"eu", "us"}))) == ["us", "eu"]


def test_regions_of_group_and_caller_narrow_each_other() -> None:
    main = group("g", Member(US, 1, 1), Member(EU, 2, 1), regions=frozenset({"eu"}))
    assert run(main) == ["eu"]
    with pytest.raises(NoCandidate) as caught:
        run(main, need=Need(regions=frozenset({"us"})))
    assert caught.value.reason == "region"


def test_neither_fallbacks_nor_rules_lead_out_of_the_region_of_the_group_asked_for() -> None:
    elsewhere = Rule(MappingProxyType({"plan": "free"}), "other", None)
    main = group("g", Member(EU, 1, 1), on_error=("other",), rules=(elsewhere,), regions=frozenset({"eu"}))
    other = group("other", Member(US, 1, 1))
    assert run(main, other) == ["eu"]
    with pytest.raises(NoCandidate) as caught:
        run(main, other, need=Need(plan="free"))
    assert caught.value.reason == "region"


def test_explain_names_ceiling_and_region() -> None:
    main = group("g", Member(US, 1, 1), Member(EU, 2, 1), max_cost=Decimal("0.50"))
    known = signals(charge={("g", "us"): Decimal("0.75"), ("g", "eu"): Decimal("0.50")})
    need = Need(regions=frozenset({"us"}))
    verdicts = explain(table(main), main, need, known, Random(1), lambda _name: True)
    assert {verdict.deployment.name: verdict.removed for verdict in verdicts} == {
        "us": "may cost up to $0.75, more than the ceiling of $0.5 for a request",
        "eu": "is in the region eu, not in the region us",
    }


def pin(main: GroupSpec, name: str, *others: GroupSpec, need: Need | None = None) -> str:
    return pinned(
        table(main, *others), main, name, need or Need(), signals(), lambda _name: True
    ).deployment.name


def test_a_deployment_asked_for_by_name_is_the_only_candidate() -> None:
    assert pin(group("g", Member(A, 1, 1), Member(B, 2, 1)), "b") == "b"


def test_a_drained_deployment_stays_drained_for_who_asks_for_it_by_name() -> None:
    with pytest.raises(NoCandidate, match="drained") as caught:
        pin(group("g", Member(A, 1, 1), Member(B, 2, 0)), "b")
    assert caught.value.reason == "pinned"


def test_asking_by_name_goes_round_no_rule() -> None:
    narrow = Rule(MappingProxyType({"plan": "free"}), None, frozenset({"a"}))
    away = Rule(MappingProxyType({"plan": "other"}), "h", None)
    main = group("g", Member(A, 1, 1), Member(B, 2, 1), rules=(narrow, away))
    for plan in ("free", "other"):
        with pytest.raises(NoCandidate) as caught:
            pin(main, "b", group("h", Member(C, 1, 1)), need=Need(plan=plan))
        assert caught.value.reason == "pinned"


def test_a_deployment_asked_for_by_name_must_be_able_to_serve() -> None:
    small = deployment("small", context_window=1000)
    with pytest.raises(NoCandidate) as caught:
        pin(group("g", Member(A, 1, 1), Member(small, 2, 1)), "small", need=Need(input_tokens=5000))
    assert caught.value.reason == "context_window"
