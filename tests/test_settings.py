"""Settings that would be unsafe in production refuse to load; every one is documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).resolve().parent.parent
SAFE = {
    "DEBUG": "false",
    "SECRET_KEY": "s" * 50,
    "API_KEY_PEPPER": "p" * 32,
    "CREDENTIAL_KEYS": Fernet.generate_key().decode(),
    "ALLOWED_HOSTS": "weir.example",
    "DATABASE_URL": "postgresql://weir@db.example/weir",
}


DSN = "import django; django.setup(); from gateway.v1.worker import database_dsn; print(database_dsn())"


def load(tmp_path: Path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Load the settings in a process of their own; None unsets a variable."""
    return execute("import gateway.settings", tmp_path, **changes)


def execute(program: str, tmp_path: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code with settings that are safe but for ``changes``."""
    environment = {name: value for name, value in {**SAFE, **changes}.items() if value is not None}
    environment |= {"PATH": os.environ["PATH"], "WEIR_DATA_DIR": str(tmp_path)}
    environment["DJANGO_SETTINGS_MODULE"] = "gateway.settings"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_safe_settings_load_and_nothing_is_made_up_for_them(tmp_path: Path) -> None:
    assert load(tmp_path).returncode == 0
    assert not (tmp_path / "secrets.json").exists()


@pytest.mark.parametrize("name", [name for name in SAFE if name != "DEBUG"])
def test_production_does_not_start_without(tmp_path: Path, name: str) -> None:
    answer = load(tmp_path, **{name: None})
    assert answer.returncode != 0
    assert f"{name} must" in answer.stderr


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SECRET_KEY", "short", "at least 50 characters"),
        ("ALLOWED_HOSTS", "*", "must name the console's hosts"),
        ("CREDENTIAL_KEYS", "not-a-key", "must be Fernet keys"),
    ],
)
def test_an_unsafe_value_is_refused_by_name_and_not_shown(
    tmp_path: Path, name: str, value: str, problem: str
) -> None:
    answer = load(tmp_path, **{name: value})
    assert answer.returncode != 0
    last = answer.stderr.strip().splitlines()[-1]
    assert name in last
    assert problem in last
    assert value not in last.replace(name, "") or value == "*"


def test_a_laptop_needs_no_setting_and_keeps_its_secrets_to_itself(tmp_path: Path) -> None:
    assert load(tmp_path, **dict.fromkeys(SAFE)).returncode == 0
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_what_the_address_of_postgresql_demands_holds_for_the_data_plane_too(tmp_path: Path) -> None:
    address = "postgresql://weir@db.example/weir?sslmode=verify-full&keepalives_idle=7"
    answer = execute(DSN, tmp_path, DATABASE_URL=address)
    assert answer.returncode == 0, answer.stderr
    demanded = conninfo_to_dict(answer.stdout.strip())
    assert (demanded["sslmode"], demanded["keepalives_idle"]) == ("verify-full", "7")
    # Not in the address: a server that is gone without a word is given up all the same.
    assert demanded["tcp_user_timeout"] == "20000"


def test_every_setting_is_in_the_table_of_the_docs() -> None:
    source = (ROOT / "gateway" / "settings.py").read_text()
    read = set(re.findall(r'env(?:\.\w+)?\(\s*"([A-Z_]+)"', source))
    read |= set(re.findall(r'required_secret\("([A-Z_]+)"\)', source))
    documented = set(
        re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    )
    assert read
    assert read <= documented
