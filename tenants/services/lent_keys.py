"""Keys that the console lends to a person's browser for the playground."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django_scopes import scope

from tenants import keys
from tenants.models import ApiKey, Membership, Team, User
from tenants.services import audit
from tenants.services.keys import KeyNameTaken, WrongOwner, create_key

LIFE = timedelta(minutes=15)
MOST_OF_AN_ADDRESS = 80


@transaction.atomic
def lend_key(*, acting_user: User, team: Team, owner: Membership) -> tuple[ApiKey, str]:
    """The playground key of ``owner`` in ``team`` with a secret that works for ``LIFE``, and that secret.

    One row each, so that its quotas and what it spent stay together; the secret lent before stops. It may
    use what the team may. Raises ``WrongOwner``, and ``KeyNameTaken`` where another key bears its name.
    """
    if owner.user_id != acting_user.pk:
        raise WrongOwner("A key is lent to its owner alone.")
    ends = timezone.now() + LIFE
    with scope(organization=team.organization):
        # Two tabs at once make one key.
        Team.objects.select_for_update(no_key=True).get(pk=team.pk)
        key = (
            ApiKey.objects.select_for_update(no_key=True)
            .filter(team=team, owner=owner, playground=True, revoked_at__isnull=True, successor__isnull=True)
            .first()
        )
        if key is None:
            name = f"Playground of {owner.user.email[:MOST_OF_AN_ADDRESS]}"
            key, secret = create_key(
                acting_user=acting_user, team=team, name=name, owner=owner, expires_at=ends
            )
            key.playground = True
            key.save(update_fields=["playground"])
            return key, secret
        secret = keys.generate()
        key.digest, key.prefix, key.last_four = keys.digest(secret), keys.prefix(secret), secret[-4:]
        key.expires_at = ends
        key.save(update_fields=["digest", "prefix", "last_four", "expires_at"])
        audit.record(
            acting_user=acting_user,
            verb="lent",
            target=key,
            organization=team.organization,
            detail={"until": ends},
        )
    return key, secret


__all__ = ["LIFE", "KeyNameTaken", "WrongOwner", "lend_key"]
