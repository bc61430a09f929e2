"""The usage as a table: one row a request, as ``billing.usage_export`` has them."""

from __future__ import annotations

from billing.exports.sheets import Table
from billing.usage_export import COLUMNS

TABLE = Table("usage", COLUMNS, {"cost": "cost_exact", "charge": "charge_exact"})
