"""Who may do what: organizations, teams, members, API keys, the audit log.

Every model that belongs to an organization uses a scoped manager: a query outside
``scope(organization=...)`` raises ``ScopeError`` instead of showing another tenant's rows.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now
from django_scopes import ScopedManager

from tenants.permissions import ORGANIZATION_ROLES, TEAM_ROLES, Role

slug_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "Use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end.",
)

# As browsers send an origin (RFC 6454, section 6.2): lower case, no path, no port that goes without saying.
origin_validator = RegexValidator(
    r"^(?!http://[^/]*:80\Z|https://[^/]*:443\Z)https?://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:[0-9]{1,5})?\Z",
    "Write an origin as browsers do, such as https://app.example.com or http://localhost:3000: lower case, "
    "no path, no slash at the end, no port 80 or 443.",
)
# For how many days at least, and at most, the details of requests are kept where not for ever.
LEAST_DETAIL_DAYS, MOST_DETAIL_DAYS = 30, 3650
# For how many days at most what was asked and answered is kept, where it is at all.
MOST_CONTENT_DAYS = 365
# Headers that tell a caller how its request was served.
HIDEABLE_HEADERS = ("x-request-id", "x-weir-attempts", "x-weir-deployment", "x-weir-dropped-params")


def header_choices() -> list[tuple[str, str]]:
    """The response headers that an organization can hide."""
    return [(name, name) for name in HIDEABLE_HEADERS]


def role_choices() -> list[tuple[str, str]]:
    """The roles a person can have in an organization."""
    return [(role.value, role.label) for role in ORGANIZATION_ROLES]


def team_role_choices() -> list[tuple[str, str]]:
    """The roles a person can have in a team."""
    return [(role.value, role.label) for role in TEAM_ROLES]


def billing_choices() -> list[tuple[str, str]]:
    """How an organization pays."""
    return [("prepaid", "Prepaid"), ("postpaid", "Postpaid")]


def owned_by(path: str) -> Any:
    """A manager that only works inside ``scope(organization=...)``; ``path`` leads to the organization."""
    return cast(Any, ScopedManager(organization=path))


class UserManager(BaseUserManager["User"]):
    """Users are found by e-mail address, whatever its case."""

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A new person. ``password`` None means that one must be set by link first."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db, force_insert=True)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A platform operator."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person who signs in to the console. ``is_staff`` marks a platform operator."""

    username = None  # type: ignore[assignment]  # people sign in by e-mail
    email = models.EmailField("e-mail address", unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects = UserManager()  # type: ignore[misc,assignment]  # AbstractUser declares its own manager

    def __str__(self) -> str:
        return self.email


class Plan(models.Model):
    """What an organization gets by default: model groups, and (in ``billing``) quotas."""

    name = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    model_groups = ArrayField(models.CharField(max_length=100), null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Organization(models.Model):
    """A tenant."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=200)
    plan = models.ForeignKey(Plan, null=True, blank=True, on_delete=models.PROTECT)
    time_zone = models.CharField(max_length=64, default="UTC")
    billing = models.CharField(max_length=10, choices=billing_choices, default="postpaid")
    # US dollars a postpaid organization may owe; null: no limit.
    credit_limit = models.DecimalField(max_digits=24, decimal_places=12, null=True, blank=True)
    # Share added to the provider's cost where a model group has no price of its own.
    markup = models.DecimalField(max_digits=9, decimal_places=6, default=0)
    # In which it sees its amounts and is invoiced (ISO 4217); the books are in US dollars.
    currency = models.CharField(
        max_length=3, default="USD", db_default="USD", validators=[RegexValidator(r"^[A-Z]{3}\Z")]
    )
    # Whether an answer is shortened to what a hard budget has left, rather than refused.
    lower_max_tokens = models.BooleanField(default=False, db_default=False)
    # Whether responses of /v1/responses are kept, with what was asked, for the next to go on from.
    store_responses = models.BooleanField(default=False, db_default=False)
    # Then the details of a request are removed (``billing.retention``); null: never.
    keep_details_days = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(LEAST_DETAIL_DAYS), MaxValueValidator(MOST_DETAIL_DAYS)],
    )
    # Whether what is asked of /v1 and answered is stored (``billing.request_content``), and for how many days.
    log_content = models.BooleanField(default=False, db_default=False)
    content_days = models.PositiveSmallIntegerField(
        default=30, db_default=30, validators=[MinValueValidator(1), MaxValueValidator(MOST_CONTENT_DAYS)]
    )
    # Names of the model groups it may use; null: all (of its plan).
    model_groups = ArrayField(models.CharField(max_length=100), null=True, blank=True)
    # Requests are only sent to deployments in one of these regions; null: anywhere.
    regions = ArrayField(models.CharField(max_length=40), null=True, blank=True)
    # Response headers of /v1 that its callers do not get, of HIDEABLE_HEADERS.
    hidden_headers = ArrayField(
        models.CharField(max_length=40, choices=header_choices), default=list, db_default=[], blank=True
    )
    # Pages of these origins may ask /v1 from a browser and read the answers.
    cors_origins = ArrayField(
        models.CharField(max_length=255, validators=[origin_validator]),
        default=list,
        db_default=[],
        blank=True,
    )
    # Whether its pages open only to people who came through its own sign-in provider.
    oidc_only = models.BooleanField(default=False, db_default=False)
    # Whether its pages open only to people with a second factor.
    require_mfa = models.BooleanField(default=False, db_default=False)
    suspended_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.slug


class Team(models.Model):
    """A group of members inside an organization; keys belong to a team."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="teams")
    slug = models.CharField(max_length=63, validators=[slug_validator])
    name = models.CharField(max_length=200)
    model_groups = ArrayField(models.CharField(max_length=100), null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Team]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "slug"], name="team_slug_in_organization")
        ]
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Membership(models.Model):
    """A person in an organization, with a role there."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=role_choices, default=Role.MEMBER.value)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Membership]] = owned_by("organization")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="one_membership_each")]

    def __str__(self) -> str:
        return str(self.user)


class TeamMembership(models.Model):
    """A member in a team, with a role there: ``admin`` manages the team's keys and quotas."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="teams")
    role = models.CharField(max_length=10, choices=team_role_choices, default=Role.MEMBER.value)

    objects: ClassVar[models.Manager[TeamMembership]] = owned_by("team__organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "membership"], name="one_team_membership_each")
        ]

    def __str__(self) -> str:
        return f"{self.membership} in {self.team}"


class Invitation(models.Model):
    """An offer to join an organization. The token is stored only as a keyed digest."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField()
    role = models.CharField(max_length=10, choices=role_choices, default=Role.MEMBER.value)
    # The teams it leads to, and the role in each.
    teams = models.ManyToManyField(Team, blank=True, related_name="+")
    team_role = models.CharField(max_length=10, choices=team_role_choices, db_default=Role.MEMBER.value)
    digest = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[models.Manager[Invitation]] = owned_by("organization")

    def __str__(self) -> str:
        return self.email


class Visit(models.Model):
    """The time in which an operator, who is no member, may read an organization's pages as a viewer."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="visits")
    operator = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    reason = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    # It is over then, whether or not anybody ended it.
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[models.Manager[Visit]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["operator", "organization"],
                condition=models.Q(ended_at__isnull=True),
                name="one_visit_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return str(self.operator)


class ApiKey(models.Model):
    """A key for ``/v1``. Only a keyed digest of the secret is stored."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="keys")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="keys")
    owner = models.ForeignKey(
        Membership, null=True, blank=True, on_delete=models.SET_NULL, related_name="keys"
    )
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16)
    last_four = models.CharField(max_length=4)
    digest = models.CharField(max_length=64, unique=True)
    # Names of the model groups it may use; null: all of its team's.
    model_groups = ArrayField(models.CharField(max_length=100), null=True, blank=True)
    # Networks it may be used from, in CIDR form; null: anywhere.
    allowed_ips = ArrayField(models.CharField(max_length=43), null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # Refused until it is resumed; who paused it, where a person did.
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    # The key that took over in a rotation; this one still works until it expires.
    successor = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    last_used_at = models.DateTimeField(null=True, blank=True)
    # Lent to its owner's browser by the console's playground: its secret changes each time, nobody reads it.
    playground = models.BooleanField(default=False, db_default=False)

    objects: ClassVar[models.Manager[ApiKey]] = owned_by("organization")

    class Meta:
        constraints = [
            # A rotated key shares its name with its successor until it is revoked or expires.
            models.UniqueConstraint(
                fields=["team", "name"],
                condition=models.Q(revoked_at__isnull=True, successor__isnull=True),
                name="key_name_in_team",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…{self.last_four})"


class AuditEntry(models.Model):
    """Who changed what, and when; written in the transaction of the change itself."""

    organization = models.ForeignKey(Organization, null=True, blank=True, on_delete=models.CASCADE)
    # Null where the change came from the command line.
    actor = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    verb = models.CharField(max_length=40)
    target_type = models.CharField(max_length=40)
    target_id = models.CharField(max_length=64)
    target_label = models.CharField(max_length=200)
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[AuditEntry]] = owned_by("organization")

    class Meta:
        indexes = [models.Index(fields=["organization", "-at"], name="audit_by_time")]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.verb} {self.target_type} {self.target_label}"
