"""The OpenAI SDK for Node, installed once per lockfile outside the source tree."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.stack import ROOT, Tenant

SOURCE = Path(__file__).parent / "node"
FILES = ("package.json", "package-lock.json", "calls.mjs")


def installed() -> Path:
    """The folder with the scripts and their packages. Skips the test without Node.

    With ``WEIR_REQUIRE_BROWSER=1`` a missing Node is a failure.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        if os.environ.get("WEIR_REQUIRE_BROWSER") == "1":
            pytest.fail("node and npm are needed")
        pytest.skip("node and npm are not installed")
    content = b"".join((SOURCE / name).read_bytes() for name in FILES)
    folder = ROOT / "var" / "test" / "node" / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    # Test workers share the folder: the first installs, the others wait.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            for name in FILES:
                shutil.copy(SOURCE / name, folder / name)
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=240,
            )
            (folder / "ready").touch()
    return folder


def call(
    tenant: Tenant,
    name: str,
    *,
    model: str = "sim-small",
    user: str = "node",
    key: str = "",
    text: str = "one two three",
) -> Any:
    """What one of the calls in ``calls.mjs`` told."""
    done = subprocess.run(
        ["node", "calls.mjs", name],
        cwd=installed(),
        env={
            **os.environ,
            "WEIR_URL": tenant.stack.url,
            "WEIR_KEY": key or tenant.secret,
            "WEIR_MODEL": model,
            "WEIR_USER": user,
            "WEIR_TEXT": text,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
