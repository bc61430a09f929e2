from __future__ import annotations

from tests.v1.conftest import tenant

__all__ = ["tenant"]
