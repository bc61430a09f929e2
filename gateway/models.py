"""What the project itself remembers."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.models import Membership, Organization, Team, User, owned_by


class AppliedObject(models.Model):
    """Something a configuration file created, so that ``apply --prune`` may remove it.

    ``kind`` is a section of the file ("providers", "organizations", "teams", ...), ``name`` the
    object's identity there ("openai", "acme", "acme/search", "acme/search/backend").
    """

    kind = models.CharField(max_length=20)
    name = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="applied_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class StoredResponse(models.Model):
    """A response of ``/v1/responses`` that its organization keeps. The data plane writes and reads it by
    SQL of its own (``gateway.v1.stored``); ``content`` is encrypted with CREDENTIAL_KEYS."""

    id = models.CharField(max_length=64, primary_key=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    # The response it goes on from; empty for none.
    previous_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    content = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)

    objects: ClassVar[models.Manager[StoredResponse]] = owned_by("organization")

    def __str__(self) -> str:
        return self.id


class UsageCheck(models.Model):
    """Of a sample of one deployment's answers of one day (UTC), tokens as its provider reported them and as
    the gateway counted them. Workers add to it by SQL of their own (``gateway.v1.usage_checks``)."""

    deployment = models.CharField(max_length=100)
    day = models.DateField()
    requests = models.BigIntegerField()
    reported_input = models.BigIntegerField()
    # Without reasoning that was not shown, which nobody else can count.
    reported_output = models.BigIntegerField()
    counted_input = models.BigIntegerField()
    counted_output = models.BigIntegerField()
    # Reported by counted tokens, of the request where they are farthest apart.
    worst_ratio = models.DecimalField(max_digits=12, decimal_places=4)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["deployment", "day"], name="usage_check_of_a_day")]

    def __str__(self) -> str:
        return f"{self.deployment} {self.day}"


def channel_choices() -> list[tuple[str, str]]:
    """How a message travels."""
    return [("email", "E-mail"), ("webhook", "Signed webhook"), ("slack", "Slack-compatible webhook")]


def topic_choices() -> list[tuple[str, str]]:
    """What a message is about."""
    return [
        ("budget", "Budget alerts"),
        ("outage", "Provider outages"),
        ("key_expiry", "Keys that end soon"),
    ]


def state_choices() -> list[tuple[str, str]]:
    """How far a delivery is."""
    return [("waiting", "Waiting"), ("sent", "Sent"), ("failed", "Failed")]


class NotificationChannel(models.Model):
    """Where an organization's messages go.

    ``recipients`` are e-mail addresses, ``roles`` roles whose members get the mail. A webhook's address
    and signing key are secrets: encrypted as credentials are, never shown again. ``host`` is the
    part of the address that may be seen.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="channels")
    kind = models.CharField(max_length=10, choices=channel_choices)
    name = models.CharField(max_length=100)
    topics = ArrayField(models.CharField(max_length=20, choices=topic_choices))
    recipients = ArrayField(models.EmailField(), default=list, blank=True)
    roles = ArrayField(models.CharField(max_length=10), default=list, blank=True)
    host = models.CharField(max_length=253, blank=True)
    ciphertext = models.BinaryField(null=True, blank=True)
    # Since when nothing arrived; after a while the channel is switched off.
    failing_since = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[NotificationChannel]] = owned_by("organization")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "name"], name="channel_name_once")]

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One message through one channel. ``about`` names its occasion, which is told once a channel."""

    channel = models.ForeignKey(NotificationChannel, on_delete=models.CASCADE, related_name="deliveries")
    topic = models.CharField(max_length=20)
    about = models.CharField(max_length=200)
    subject = models.CharField(max_length=200)
    text = models.TextField()
    state = models.CharField(max_length=10, choices=state_choices, default="waiting")
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    # A status or the kind of failure; never an address, an answer or a secret.
    problem = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[Delivery]] = owned_by("channel__organization")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["channel", "about"], name="told_once")]
        indexes = [
            models.Index(fields=["next_at"], condition=models.Q(state="waiting"), name="delivery_waiting")
        ]

    def __str__(self) -> str:
        return self.subject


class SignInProvider(models.Model):
    """The OpenID Connect provider through which an organization's people sign in."""

    organization = models.OneToOneField(
        Organization, on_delete=models.CASCADE, related_name="sign_in_provider"
    )
    # As the provider's discovery document and its tokens write it.
    issuer = models.CharField(max_length=300)
    client_id = models.CharField(max_length=300)
    # The client secret, encrypted as credentials are, never shown again.
    ciphertext = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[SignInProvider]] = owned_by("organization")

    def __str__(self) -> str:
        return self.issuer


class EmailDomain(models.Model):
    """A domain of e-mail addresses that an organization claims; its own once an operator has confirmed it."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="email_domains")
    # In lower case and ASCII (IDNA). Subdomains are domains of their own.
    domain = models.CharField(max_length=253)
    # What a TXT record of the domain says to prove the claim; no secret.
    token = models.CharField(max_length=64)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    confirmed_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[EmailDomain]] = owned_by("organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "domain"], name="domain_claimed_once"),
            models.UniqueConstraint(
                fields=["domain"],
                condition=models.Q(confirmed_at__isnull=False),
                name="domain_of_one_organization",
            ),
        ]
        ordering = ["domain"]

    def __str__(self) -> str:
        return self.domain


class SignInIdentity(models.Model):
    """Who a member is at their organization's provider. It goes with the membership and with the issuer."""

    provider = models.ForeignKey(SignInProvider, on_delete=models.CASCADE, related_name="identities")
    membership = models.ForeignKey(Membership, on_delete=models.CASCADE, related_name="+")
    # ``sub`` of the provider's tokens, which unlike an address is never given to somebody else.
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[SignInIdentity]] = owned_by("provider__organization")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "subject"], name="subject_is_one_member"),
            models.UniqueConstraint(fields=["provider", "membership"], name="member_is_one_subject"),
        ]

    def __str__(self) -> str:
        return self.subject
