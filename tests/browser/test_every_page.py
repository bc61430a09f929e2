"""Every page of the console, opened in a browser with sample data: no script error, no breach of the content
security policy, nothing that axe-core calls serious, nothing heavy, nothing that scrolls sideways."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Some two hundred pages, each asked by axe-core: minutes, and more on a busy machine.
SECONDS = 1500
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(SECONDS)]
ROOT = Path(__file__).resolve().parents[2]


def test_every_page_is_sound_in_a_browser(chromium: str, tmp_path: Path) -> None:
    asked = [sys.executable, "manage.py", "shots", "--browser", chromium, "--output", str(tmp_path)]
    # Nobody looks at pictures here, so only a few are taken.
    asked += ["--pictures", "login"]
    ran = subprocess.run(
        asked,
        cwd=ROOT,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=SECONDS - 60,
        check=False,
    )
    problems = [line for line in ran.stderr.splitlines() if ": " in line and " WARNING " not in line]
    assert ran.returncode == 0, "\n".join(problems)
    assert len(ran.stdout.splitlines()) > 200
    assert {path.name for path in tmp_path.iterdir()} == {"login.png", "login-dark.png", "login-wrong.png"}
