"""What is wrong with a file is told with file, line and field, all at once, and nothing is applied."""

from __future__ import annotations

import pytest
from django_scopes import scopes_disabled

from gateway.configuration.problems import ConfigurationError
from gateway.configuration.schema import ProviderBlock
from routing.kinds import KINDS
from routing.models import Provider
from tenants.models import AuditEntry
from tests.configuration.filed import ENVIRONMENT, SAMPLE, apply, changed, line_of

pytestmark = pytest.mark.django_db


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refusal:
        apply(text)
    assert not Provider.objects.exists()
    with scopes_disabled():
        assert not AuditEntry.objects.exists()
    return [str(problem) for problem in refusal.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        (
            "    strategy: priority",
            "    stategy: priority",
            "model_groups[0].stategy",
            "is not a known field; did you mean strategy?",
        ),
        (
            "    kind: vllm",
            "    kind: vllm\n    colour: red",
            "providers[1].colour",
            "is not a known field; the fields here are name, kind, base_url, credentials, timeouts",
        ),
        ("    kind: vllm\n", "", "providers[1].kind", "is missing"),
        (
            "kind: vllm",
            "kind: vlm",
            "providers[1].kind",
            f"must be one of {', '.join(KINDS)}",
        ),
        (
            "    base_url: http://127.0.0.1:8001/v1",
            "    timeouts: {}",
            "providers[1]",
            "base_url is missing, and kind vllm has no default",
        ),
        (
            "    base_url: http://127.0.0.1:8001/v1",
            "    base_url: http://127.0.0.1:8001/v1?key=secret",
            "providers[1].base_url",
            "must be an http or https address without user, query or fragment",
        ),
        (
            "    base_url: http://127.0.0.1:8001/v1",
            "    base_url: http://127.0.0.1:8001/v1?api-version=1",
            "providers[1]",
            "base_url may have an api-version only for kind azure",
        ),
        (
            "    base_url: http://127.0.0.1:8001/v1",
            "    base_url: ftp://127.0.0.1/v1",
            "providers[1].base_url",
            "must be an http or https address without user, query or fragment",
        ),
        (
            '    credentials: ["${OPENAI_API_KEY}"]\n',
            "",
            "providers[0]",
            "credentials are missing, and kind openai needs one",
        ),
        (
            '["${OPENAI_API_KEY}"]',
            '["${NO_SUCH_KEY}"]',
            "providers[0].credentials[0]",
            "the environment variable NO_SUCH_KEY is not set",
        ),
        (
            '["${OPENAI_API_KEY}"]',
            '["${1BAD}"]',
            "providers[0].credentials[0]",
            "has a ${ that is not a variable: write ${NAME}, or $${ for itself",
        ),
        (
            '{input: "2.50"',
            "{input: 2.50",
            "deployments[1].cost.input",
            'must be a quoted decimal: write "2.5" with the quotes',
        ),
        (
            '{input: "2.50"',
            '{input: "cheap"',
            "deployments[1].cost.input",
            'must be a decimal of 0 or more with at most twelve places, such as "0.25"',
        ),
        (
            '{input: "2.50"',
            '{input: "-1"',
            "deployments[1].cost.input",
            'must be a decimal of 0 or more with at most twelve places, such as "0.25"',
        ),
        (
            '{input: "2.50", output',
            "{output",
            "deployments[1].cost",
            "names other tokens, so input is missing",
        ),
        (
            "context_window: 400000",
            'context_window: "400000"',
            "deployments[0].context_window",
            "must be a valid integer",
        ),
        (
            "capabilities: [tools,",
            "capabilities: [tols,",
            "deployments[0].capabilities[0]",
            "must be one of audio, json_schema, no_streaming, tools, vision",
        ),
        (
            "provider: local",
            "provider: lokal",
            "deployments[2].provider",
            "'lokal' is not a provider in this file or in the database",
        ),
        (
            "{name: own, weight: 3}",
            "{name: owned, weight: 3}",
            "model_groups[3].deployments[0].name",
            "'owned' is not a deployment in this file or in the database",
        ),
        (
            "on_error: [backup]",
            "on_error: [quality, back]",
            "model_groups[0].fallbacks.on_error[1]",
            "'back' is not a model group in this file or in the database",
        ),
        (
            "use: quality",
            "use: quantity",
            "model_groups[0].rules[0].use",
            "'quantity' is not a model group in this file or in the database",
        ),
        (
            "{plan: enterprise}",
            "{plan: enterprice}",
            "model_groups[0].rules[0].when.plan",
            "'enterprice' is not a plan in this file or in the database",
        ),
        (
            "deployments: [gpt-vision]}",
            "deployments: [own]}",
            "model_groups[0].rules[2].deployments[0]",
            "'own' is not a deployment of the group fast",
        ),
        (
            "{plan: enterprise}, use: quality}",
            "{plan: enterprise}}",
            "model_groups[0].rules[0]",
            "must give either use (a group) or deployments (of this group)",
        ),
        (
            "{when: {plan: enterprise}",
            "{when: {}",
            "model_groups[0].rules[0].when",
            "must give a condition: plan, team, input_tokens_over, needs or region",
        ),
        (
            "    plan: enterprise",
            "    plan: basic",
            "organizations[0].plan",
            "'basic' is not a plan in this file or in the database",
        ),
        (
            "time_zone: Europe/Berlin",
            "time_zone: Europe/Berlino",
            "organizations[0].time_zone",
            "'Europe/Berlino' is not a time zone, such as Europe/Berlin or UTC.",
        ),
        (
            "    billing: prepaid",
            '    billing: prepaid\n    credit_limit: "5.00"',
            "organizations[0]",
            "a prepaid organization never goes below zero, so it has no credit_limit",
        ),
        (
            "period: month",
            "period: year",
            "organizations[0].quotas.budget.period",
            "must be 'day', 'week', 'month' or 'total'",
        ),
        (
            'quotas: {budget: {amount: "5.00", period: day}}',
            "quotas: {model_groups: {fats: {concurrency: 3}}}",
            "organizations[0].teams[0].quotas.model_groups.fats",
            "'fats' is not a model group in this file or in the database",
        ),
        (
            "role: owner",
            "role: boss",
            "organizations[0].users[0].role",
            "must be one of owner, admin, finance, member, viewer",
        ),
        (
            "owner: bob@acme.example",
            "owner: eve@acme.example",
            "organizations[0].teams[0].keys[0].owner",
            "'eve@acme.example' is not a member of acme: add them to its users",
        ),
        (
            '"203.0.113.0/24"',
            '"203.0.113.9/24"',
            "organizations[0].teams[0].keys[0].allowed_ips[0]",
            "'203.0.113.9/24' is not an address range in CIDR form: 203.0.113.9/24 has host bits set.",
        ),
        (
            "expires_at: 2027-12-31",
            "expires_at: soon",
            "organizations[0].teams[0].keys[0].expires_at",
            "must be a date, such as 2027-12-31",
        ),
        (
            '"${SEARCH_KEY}"',
            '"sk-too-short"',
            "organizations[0].teams[0].keys[0].secret",
            "A key's secret must have at least 32 characters after its prefix.",
        ),
        (
            "- name: search-batch",
            '- {name: search-batch, secret: "${SEARCH_KEY}"}',
            "organizations[0].teams[0].keys[1].secret",
            f"is the secret of another key already, in line {line_of('secret:')}",
        ),
        (
            "- name: search-batch",
            "- name: search-backend",
            "organizations[0].teams[0].keys[1].name",
            f"'search-backend' is there already, in line {line_of('search-backend')}",
        ),
        (
            "  - {name: long,",
            "  - {name: quality,",
            "model_groups[2].name",
            f"'quality' is there already, in line {line_of('name: quality')}",
        ),
    ],
)
def test_a_mistake_is_told_with_its_field(old: str, new: str, field: str, message: str) -> None:
    found = problems_of(changed((old, new)))
    assert [each.split(": ", 1)[1] for each in found].count(f"{field}: {message}") == 1, found


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("    kind: vllm", "    kind: 7", line_of("kind: vllm"), "providers[1].kind"),
        ("    kind: vllm\n", "", line_of("name: local"), "providers[1].kind"),
        ('{input: "2.50"', "{input: 2.50", line_of('"2.50"'), "deployments[1].cost.input"),
        ("use: quality", "use: none", line_of("use: quality"), "model_groups[0].rules[0].use"),
        ("period: month", "period: year", line_of("period: month"), "organizations[0].quotas.budget.period"),
        ("plans:", "plan:", line_of("plans:"), "plan"),
        ("provider: local", "provider: lokal", line_of("provider: local"), "deployments[2].provider"),
        (
            "on_error: [backup]",
            "on_error: [back]",
            line_of("on_error"),
            "model_groups[0].fallbacks.on_error[0]",
        ),
        (
            "{name: own, weight",
            "{name: our, weight",
            line_of("own, w"),
            "model_groups[3].deployments[0].name",
        ),
        ("    plan: enterprise", "    plan: basic", line_of("    plan: e"), "organizations[0].plan"),
        (
            "deployments: [gpt-vision]}",
            "deployments: [own]}",
            line_of("needs"),
            "model_groups[0].rules[2].deployments[0]",
        ),
        ("owner: bob", "owner: eve", line_of("owner: bob"), "organizations[0].teams[0].keys[0].owner"),
        ("${OPENAI_API_KEY}", "${NO_SUCH_KEY}", line_of("${OPENAI"), "providers[0].credentials[0]"),
        ("${SEARCH_KEY}", "sk-short", line_of("${SEARCH"), "organizations[0].teams[0].keys[0].secret"),
        # A block that contradicts itself is told at its first line.
        (
            "{plan: enterprise}, use: quality}",
            "{plan: enterprise}}",
            line_of("use: quality"),
            "model_groups[0].rules[0]",
        ),
        (
            "- name: search-batch",
            "- name: search-backend",
            line_of("search-batch"),
            "organizations[0].teams[0].keys[1].name",
        ),
    ],
)
def test_the_line_is_the_one_of_the_field(old: str, new: str, line: int, field: str) -> None:
    assert any(each.startswith(f"weir.yaml:{line}: {field}: ") for each in problems_of(changed((old, new))))


def test_a_field_given_twice_is_refused_with_both_lines() -> None:
    text = changed(("    kind: vllm", "    kind: vllm\n    kind: ollama"))
    first = line_of("kind: vllm", text)
    assert problems_of(text) == [
        f"weir.yaml:{first + 1}: providers[1].kind: is given twice (first in line {first})"
    ]


def test_fallbacks_that_lead_in_a_circle_are_refused() -> None:
    text = changed(
        (
            "  - {name: backup, strategy: weighted,",
            "  - {name: backup, fallbacks: {on_error: [quality]}, strategy: weighted,",
        ),
        ("  - {name: quality,", "  - {name: quality, fallbacks: {on_error: [fast]},"),
    )
    (problem,) = problems_of(text)
    assert problem.endswith("leads in a circle: backup -> quality -> fast -> backup")


def test_a_group_that_falls_back_to_itself_is_refused() -> None:
    (problem,) = problems_of(changed(("on_error: [backup]", "on_error: [fast]")))
    line = line_of("fallbacks:")
    assert problem == f"weir.yaml:{line}: model_groups[0].fallbacks.on_error: leads in a circle: fast -> fast"


def test_all_mistakes_are_told_together_in_the_order_of_the_file() -> None:
    text = changed(
        ("kind: vllm", "kind: vlm"),
        ('{input: "2.50"', "{input: 2.50"),
        ("role: owner", "role: boss"),
    )
    fields = [each.split(": ")[1] for each in problems_of(text)]
    assert fields == ["providers[1].kind", "deployments[1].cost.input", "organizations[0].users[0].role"]


def test_what_is_no_yaml_is_told_with_its_line() -> None:
    (problem,) = problems_of("providers:\n  - {name: openai\n  - [\n")
    assert problem.startswith("weir.yaml:")
    assert "is not valid YAML" in problem


def test_a_file_that_is_a_list_is_refused() -> None:
    assert problems_of("- a\n- b\n") == ["weir.yaml:1: must be a mapping of sections"]


def test_an_unknown_tag_is_refused() -> None:
    text = changed(("kind: vllm", "kind: !!python/name:os.system vllm"))
    assert any(
        "the tag tag:yaml.org,2002:python/name:os.system is not known here" in p for p in problems_of(text)
    )


def test_an_anchor_inside_itself_is_refused() -> None:
    assert any("nested too deep" in each for each in problems_of("providers: &a\n  - *a\n"))


def test_no_message_quotes_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SEARCH_KEY", "sk-short-but-secret")
    monkeypatch.setitem(ENVIRONMENT, "OPENAI_API_KEY", "")
    text = "\n".join(problems_of(changed(("role: owner", "role: boss"))))
    assert "sk-short-but-secret" not in text
    assert ENVIRONMENT["ANN_PASSWORD"] not in text


def test_an_empty_file_or_section_changes_nothing() -> None:
    assert apply("").changes == []
    assert apply("providers:\norganizations: []\n").changes == []
    assert SAMPLE


def test_a_rule_that_is_never_reached_is_refused() -> None:
    text = changed(
        (
            "      - {when: {input_tokens_over: 32000}, use: long}\n",
            (
                "      - {when: {input_tokens_over: 32000}, use: long}\n"
                "      - {when: {input_tokens_over: 64000, needs: [vision]}, use: quality}\n"
            ),
        )
    )
    (problem,) = problems_of(text)
    line = line_of("input_tokens_over: 32000")
    assert problem == (
        f"weir.yaml:{line + 1}: model_groups[0].rules[2]: "
        f"is never reached: the rule in line {line} matches whatever it does"
    )


@pytest.mark.django_db
def test_a_group_without_a_priced_deployment_is_refused() -> None:
    text = changed(("{name: quality, deployments: [{name: gpt-vision}]}", "{name: quality}"))
    (problem,) = problems_of(text)
    assert "model_groups[1]: No deployment of quality has a price" in problem


def test_the_address_of_an_azure_resource_may_have_a_version() -> None:
    address = "https://r.openai.azure.com?api-version=2024-10-21"
    block = ProviderBlock.model_validate(
        {"name": "a", "kind": "azure", "base_url": address, "credentials": ["k"]}
    )
    assert block.base_url == address
