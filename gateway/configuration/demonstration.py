"""The demo: a configuration of a simulated provider and a small tenant, to look around in."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django_scopes import scopes_disabled

from gateway.configuration.schema import Configuration
from routing.models import Deployment, ModelGroup
from tenants.keys import digest, generate
from tenants.models import ApiKey, Organization, User

ORGANIZATION = "demo"
OWNER = "ann@demo.example"
# Model names that answer as a healthy model does, then some that misbehave in their own ways.
HEALTHY = ("sim-small", "sim-large", "sim-embed", "sim-slow")
FAULTY = ("sim-429-once", "sim-500", "sim-cut", "sim-error-midstream", "sim-silence", "sim-nousage")

_PRICES = {
    "sim-large": '{input: "1.25", cached_input: "0.125", output: "10.00"}',
    "sim-embed": '{input: "0.02"}',
}
_PRICE = '{input: "0.25", cached_input: "0.025", output: "2.00"}'

_TEMPLATE = """\
providers:
  - {{name: simulator, kind: simulator, base_url: "{simulator}"}}
{model_provider}
deployments:
{deployments}
model_groups:
  - name: fast
    strategy: priority
    deployments: [{{name: sim-small, priority: 1}}]
    fallbacks: {{on_error: [quality]}}
    price: {{input: "0.30", cached_input: "0.03", output: "2.40"}}
  - name: quality
    deployments: [{{name: sim-large}}]
  - name: embed
    deployments: [{{name: sim-embed}}]
  - name: steady    # its first deployment is refused once, so an answer shows the next one taking over
    deployments: [{{name: sim-429-once, priority: 1}}, {{name: sim-small, priority: 2}}]
{groups}
organizations:
  - slug: demo
    name: Demo Ltd
    time_zone: Europe/Berlin
    billing: postpaid
    credit_limit: "100.00"
    markup: "0.20"
    quotas:
      budget: {{amount: "50.00", period: month, alert_at: ["0.5", "0.8", "1"]}}
      requests_per_minute: 6000
      concurrency: 100
    end_user_quotas: {{budget: {{amount: "1.00", period: day}}}}
    users:
      - {{email: ann@demo.example, role: owner, password: "${{PASSWORD}}"}}
      - {{email: finn@demo.example, role: finance}}
    teams:
      - slug: search
        name: Search
        quotas: {{budget: {{amount: "5.00", period: day}}}}
        members: [{{email: ann@demo.example, role: admin}}, {{email: bob@demo.example, role: member}}]
        keys:
          - name: search-backend
            secret: "${{KEY}}"
            owner: ann@demo.example
      - slug: support
        name: Support
        model_groups: [fast, embed]
        quotas: {{budget: {{amount: "2.00", period: day}}, requests_per_minute: 600}}
        members: [{{email: bob@demo.example, role: admin}}]
"""


@dataclass(frozen=True)
class DemoSecrets:
    """What a second run must know again."""

    password: str
    key: str


def keep_secrets(data_dir: Path) -> tuple[DemoSecrets, bool]:
    """The secrets in ``demo.json`` (mode 0600) under ``data_dir``, and whether they were made just now."""
    path = data_dir / "demo.json"
    try:
        kept = json.loads(path.read_text())
        return DemoSecrets(kept["password"], kept["key"]), False
    except (FileNotFoundError, ValueError, KeyError):
        pass
    made = DemoSecrets(secrets.token_urlsafe(12), generate())
    data_dir.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"demo.{secrets.token_hex(4)}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(made), file)
    draft.replace(path)
    return made, True


def api_root(url: str) -> str:
    """The address of an OpenAI-compatible API, given that or the server's root."""
    return url.rstrip("/") + ("/v1" if urlsplit(url).path in {"", "/"} else "")


def demo_configuration(simulator_url: str, model_url: str | None, model_name: str) -> str:
    """The demo as the text of a configuration file, wanting the variables PASSWORD and KEY."""
    names = HEALTHY + FAULTY
    deployments = [
        f"  - {{name: {name}, provider: simulator, model: {name}, cost: {_PRICES.get(name, _PRICE)}}}\n"
        for name in names
    ]
    groups = [f"  - {{name: {name}, deployments: [{{name: {name}}}]}}\n" for name in names]
    provider = ""
    if model_url is not None:
        provider = f'  - {{name: local, kind: llamacpp, base_url: "{api_root(model_url)}"}}\n'
        deployments.append(
            f"  - {{name: smollm2, provider: local, model: {json.dumps(model_name)}, "
            'cost: {input: "0", output: "0"}}\n'
        )
        groups.append("  - {name: smollm2, deployments: [{name: smollm2}]}\n")
    return _TEMPLATE.format(
        simulator=api_root(simulator_url),
        model_provider=provider,
        deployments="".join(deployments),
        groups="".join(groups),
    )


def only_missing(configuration: Configuration) -> Configuration:
    """``configuration`` without what is there already, so that a later start undoes nobody's changes.

    Providers stay: the ports they listen on may differ from start to start.
    """
    deployments = set(Deployment.objects.values_list("name", flat=True))
    groups = set(ModelGroup.objects.values_list("name", flat=True))
    organizations = set(Organization.objects.values_list("slug", flat=True))
    return configuration.model_copy(
        update={
            "deployments": [each for each in configuration.deployments if each.name not in deployments],
            "model_groups": [each for each in configuration.model_groups if each.name not in groups],
            "organizations": [each for each in configuration.organizations if each.slug not in organizations],
        }
    )


def key_works(kept: DemoSecrets) -> bool:
    """Whether nobody has revoked or replaced the demo's key."""
    with scopes_disabled():
        return ApiKey.objects.filter(digest=digest(kept.key), revoked_at__isnull=True).exists()


def owner_password(kept: DemoSecrets, *, made_now: bool) -> str | None:
    """The demo owner's password; None if they chose another one since.

    Where the file with the old one was lost, the new one is set.
    """
    owner = User.objects.filter(email=OWNER).first()
    if owner is None:
        return None
    if owner.check_password(kept.password):
        return kept.password
    if not made_now:
        return None
    owner.set_password(kept.password)
    owner.save(update_fields=["password"])
    return kept.password
