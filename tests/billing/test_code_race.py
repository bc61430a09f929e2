"""A code that many processes redeem at the same moment is redeemed by one of them."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from django_scopes import scopes_disabled

from billing import ledger
from billing.models import RedeemableCode
from billing.services.codes import make_code
from tenants.models import User
from tests.billing.made_usage import make_tenant
from tests.stack import environment_for

PROGRAM = """
import sys, time, django
django.setup()
from billing.services.codes import CodeError, redeem
from tenants.models import Organization, User
user = User.objects.get(email=sys.argv[1])
organization = Organization.objects.get(slug=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    redeem(acting_user=user, organization=organization, code=sys.argv[3])
    print("redeemed")
except CodeError as error:
    print(error)
"""


def test_of_processes_that_redeem_at_once_one_does(committed: None, slug: str, tmp_path: Path) -> None:
    first, second = make_tenant(slug), make_tenant(f"{slug}-x")
    User.objects.create_user(f"{slug}@x.example")
    code, text = make_code(acting_user=None, amount=Decimal(9))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, f"{slug}@x.example", tenant.organization.slug, text],
            env=environment_for(tmp_path),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for tenant in (first, second) * 2
    ]
    for each in running:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    said = sorted(each.communicate(timeout=60)[0].strip() for each in running)
    assert said == ["This code was redeemed before."] * 3 + ["redeemed"]
    balances = [ledger.balance(tenant.organization) for tenant in (first, second)]
    assert sorted(balances) == [Decimal(0), Decimal(9)]
    with scopes_disabled():
        assert RedeemableCode.objects.get(pk=code.pk).posting is not None
