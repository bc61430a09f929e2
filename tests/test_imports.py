"""Imports that import-linter cannot express: parts of an external package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = ("django.http", "django.views", "django.forms", "django.shortcuts", "django.urls")


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "gateway" / "v1").glob("**/*.py")), ids=lambda path: path.name
)
def test_the_data_plane_imports_nothing_of_request_handling(path: Path) -> None:
    assert not {name for name in imported(path) if name.startswith(FORBIDDEN)}
