"""Where a request goes: providers, their credentials, deployments and model groups."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now

from routing.exactness import structured_output_choices, unsupported_params_choices
from routing.kinds import kind_choices
from routing.strategies import strategy_choices

name_validator = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$",
    "Use 1 to 100 letters, digits, dots, underscores, colons and hyphens, beginning with a letter or digit.",
)

region_validator = RegexValidator(
    r"^[a-z0-9][a-z0-9-]{0,39}$",
    "Use 1 to 40 lower-case letters, digits and hyphens, beginning with a letter or digit.",
)


class Provider(models.Model):
    """A service that answers requests, or a server of one's own."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    kind = models.CharField(max_length=20, choices=kind_choices)
    base_url = models.URLField(max_length=500)
    # Seconds.
    connect_timeout = models.FloatField(default=5)
    first_token_timeout = models.FloatField(default=60)
    idle_timeout = models.FloatField(default=30)
    total_timeout = models.FloatField(default=600)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class Credential(models.Model):
    """A provider's API key, encrypted with the first of CREDENTIAL_KEYS and never shown again."""

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="credentials")
    ciphertext = models.BinaryField()
    last_four = models.CharField(max_length=4, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"…{self.last_four}"


class Deployment(models.Model):
    """One model at one provider."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="deployments")
    model = models.CharField(max_length=200)
    # Tokens; null: unknown, not checked.
    context_window = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    # What it can do (tools, json_schema, vision, ...); null: whatever is asked.
    capabilities = ArrayField(models.CharField(max_length=40), null=True, blank=True)
    # Where it runs, such as "eu"; empty: not said, so not for requests that must stay in a region.
    region = models.CharField(
        max_length=40, blank=True, default="", db_default="", validators=[region_validator]
    )
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class ModelGroup(models.Model):
    """The name a client sends as ``model``, and the deployments behind it."""

    name = models.CharField(max_length=100, unique=True, validators=[name_validator])
    strategy = models.CharField(max_length=20, choices=strategy_choices, default="priority")
    # Group names by reason: {"on_error": [...], "on_context_window": [...], "on_content_filter": [...]}.
    fallbacks = models.JSONField(default=dict, blank=True)
    # [{"when": {...}, "use": group} or {"when": {...}, "deployments": [...]}], first match wins.
    rules = models.JSONField(default=list, blank=True)
    # US dollars that one request may be charged at most; null: no ceiling.
    max_cost = models.DecimalField(
        max_digits=24, decimal_places=12, null=True, blank=True, validators=[MinValueValidator(0)]
    )
    # Only deployments in one of these; null: anywhere.
    regions = ArrayField(
        models.CharField(max_length=40, validators=[region_validator]), null=True, blank=True
    )
    # Whether clients may ask for one of its deployments, as group/deployment.
    pin = models.BooleanField(default=True, db_default=True)
    # Whether a conversation goes on where its prompt is cached, while that saves money.
    affinity = models.BooleanField(default=True, db_default=True)
    # Whether a request that is late is sent to a second deployment too.
    hedge = models.BooleanField(default=False, db_default=False)
    # Whether a stream that breaks off is continued by another deployment.
    resume = models.BooleanField(default=False, db_default=False)
    # What becomes of an answer that breaks the schema asked for, where a provider cannot be held to it.
    structured_output = models.CharField(
        max_length=10, choices=structured_output_choices, default="repair", db_default="repair"
    )
    # Whether the arguments of tool calls must be valid against the tool's parameters.
    validate_tools = models.BooleanField(default=False, db_default=False)
    # What becomes of parameters that a provider cannot honour.
    unsupported_params = models.CharField(
        max_length=10, choices=unsupported_params_choices, default="map", db_default="map"
    )
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class GroupDeployment(models.Model):
    """A deployment's place in a model group."""

    group = models.ForeignKey(ModelGroup, on_delete=models.CASCADE, related_name="members")
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="groups")
    # Lower is tried first.
    priority = models.PositiveIntegerField(default=1)
    # Share among equals; 0 drains it.
    weight = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "deployment"], name="deployment_once_in_group")
        ]
        ordering = ["priority", "id"]

    def __str__(self) -> str:
        return f"{self.deployment} in {self.group}"
