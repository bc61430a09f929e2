"""The commands apply, export and demo, as they are typed."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django_scopes import scopes_disabled
from pytest_django import Settings

from billing.services.prices import price_in_force
from routing.models import Deployment, ModelGroup, Provider
from tenants.keys import digest
from tenants.models import ApiKey, AuditEntry, Organization, User
from tenants.services.keys import revoke_key
from tenants.services.organizations import update_organization
from tests.configuration.filed import ENVIRONMENT, SAMPLE

pytestmark = pytest.mark.django_db
SIMULATOR = ("--simulator-url", "http://127.0.0.1:8200", "--base-url", "http://127.0.0.1:8000/")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample on disk, with its variables in the environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "weir.yaml"
    path.write_text(SAMPLE)
    return path


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_a_plan_prints_what_would_change_and_no_key(file: Path) -> None:
    lines = run("apply", str(file), "--plan").splitlines()
    assert lines[0] == "+ provider openai"
    assert lines[-1] == "Plan: 17 to create, 0 to change, 0 to remove."
    assert not Provider.objects.exists()


def test_applying_prints_made_keys_once_and_then_nothing_to_change(file: Path) -> None:
    lines = run("apply", str(file)).splitlines()
    assert "Applied: 17 created, 0 changed, 0 removed." in lines
    name, secret = lines[-1].split()
    assert name == "acme/search/search-batch"
    with scopes_disabled():
        assert ApiKey.objects.get(name="search-batch").digest == digest(secret)
    assert run("apply", str(file)) == "Nothing to change.\n"


def test_no_command_prints_a_secret_of_the_file(file: Path) -> None:
    said = run("apply", str(file)) + run("export")
    for secret in ENVIRONMENT.values():
        assert secret not in said


def test_a_bad_file_ends_in_an_error_that_counts_its_problems(file: Path) -> None:
    file.write_text(SAMPLE.replace("kind: vllm", "kind: vlm").replace("role: owner", "role: boss"))
    with pytest.raises(CommandError) as error:
        run("apply", str(file))
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{file}:8: providers[1].kind: must be one of")
    assert lines[-1] == "2 problems; nothing was applied."


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot be read: No such file"):
        run("apply", str(tmp_path / "none.yaml"))


def test_a_prune_shows_what_it_will_remove_before_it_does(file: Path) -> None:
    run("apply", str(file))
    file.write_text(SAMPLE.replace("          - name: search-batch\n", ""))
    assert run("apply", str(file), "--prune", "--yes").splitlines() == [
        "To be removed:",
        "  - key acme/search/search-batch (revoked)",
        "- key acme/search/search-batch (revoked)",
        "Applied: 0 created, 0 changed, 1 removed.",
    ]


def test_export_writes_a_file_that_apply_takes(file: Path, tmp_path: Path) -> None:
    run("apply", str(file))
    exported = tmp_path / "export.yaml"
    run("export", str(exported))
    assert run("apply", str(exported)) == "Nothing to change.\n"


def test_the_demo_says_where_to_go_and_what_it_says_is_true(settings: Settings, tmp_path: Path) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    said = run("demo", *SIMULATOR)
    password = re.search(r"password: (\S+)", said)
    key = re.search(r"^Key +(\S+)$", said, re.MULTILINE)
    assert password is not None
    assert key is not None
    assert User.objects.get(email="ann@demo.example").check_password(password.group(1))
    with scopes_disabled():
        assert ApiKey.objects.get(digest=digest(key.group(1))).team.slug == "search"
    assert "http://127.0.0.1:8000/o/demo/" in said
    assert (
        f"curl -N http://127.0.0.1:8000/v1/chat/completions -H 'Authorization: Bearer {key.group(1)}'" in said
    )
    kept = tmp_path / "demo.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text()) == {"password": password.group(1), "key": key.group(1)}


def test_every_model_of_the_demo_is_at_the_simulator_and_priced(settings: Settings, tmp_path: Path) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    run("demo", *SIMULATOR)
    assert Provider.objects.get().base_url == "http://127.0.0.1:8200/v1"
    names = {group.name for group in ModelGroup.objects.all()}
    assert {"fast", "quality", "embed", "sim-small", "sim-large", "sim-embed"} <= names
    for deployment in Deployment.objects.all():
        assert price_in_force(deployment=deployment) is not None


def test_a_second_demo_says_the_same_and_writes_nothing(settings: Settings, tmp_path: Path) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    said = run("demo", *SIMULATOR)
    with scopes_disabled():
        count = AuditEntry.objects.count()
        assert run("demo", *SIMULATOR) == said
        assert AuditEntry.objects.count() == count


def test_a_second_demo_follows_the_simulator_and_undoes_no_change_made_since(
    settings: Settings, tmp_path: Path
) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    run("demo", *SIMULATOR)
    organization = Organization.objects.get(slug="demo")
    update_organization(acting_user=None, organization=organization, name="Mine")
    with scopes_disabled():
        revoke_key(acting_user=None, key=ApiKey.objects.get(name="search-backend"))
    ModelGroup.objects.get(name="sim-cut").delete()
    said = run("demo", "--simulator-url", "http://127.0.0.1:8299", "--base-url", "http://127.0.0.1:8000")
    assert Provider.objects.get().base_url == "http://127.0.0.1:8299/v1"
    assert Organization.objects.get(slug="demo").name == "Mine"
    assert "Key       (revoked or replaced since)" in said
    assert ModelGroup.objects.filter(name="sim-cut").exists()


def test_a_demo_whose_file_was_lost_gets_a_new_password_and_key_that_work(
    settings: Settings, tmp_path: Path
) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    run("demo", *SIMULATOR)
    (tmp_path / "demo.json").unlink()
    run("demo", *SIMULATOR)
    kept = json.loads((tmp_path / "demo.json").read_text())
    assert User.objects.get(email="ann@demo.example").check_password(kept["password"])
    with scopes_disabled():
        assert ApiKey.objects.get(name="search-backend").digest == digest(kept["key"])


def test_a_password_changed_since_is_not_told_wrong(settings: Settings, tmp_path: Path) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    run("demo", *SIMULATOR)
    ann = User.objects.get(email="ann@demo.example")
    ann.set_password("quite another one")
    ann.save(update_fields=["password"])
    assert "password: (changed since)" in run("demo", *SIMULATOR)
    ann.refresh_from_db()
    assert ann.check_password("quite another one")


def test_the_small_model_is_offered_where_it_runs(settings: Settings, tmp_path: Path) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    run("demo", *SIMULATOR, "--model-url", "http://127.0.0.1:8300")
    local = Provider.objects.get(name="local")
    assert (local.kind, local.base_url) == ("llamacpp", "http://127.0.0.1:8300/v1")
    assert ModelGroup.objects.get(name="smollm2").members.get().deployment.model == "smollm2-135m"


def test_a_prune_of_another_file_leaves_the_demo(settings: Settings, tmp_path: Path, file: Path) -> None:
    settings.WEIR_DATA_DIR = tmp_path
    run("demo", *SIMULATOR)
    run("apply", str(file), "--prune")
    assert Organization.objects.filter(slug="demo", suspended_at__isnull=True).exists()
