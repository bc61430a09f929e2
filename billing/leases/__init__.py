"""Money on many workers: each spends from slices of a budget that PostgreSQL has granted it."""

from billing.leases.account import Account, BudgetExceeded, BudgetRule, MoneyUnavailable, Reservation
from billing.leases.book import LeaseBook

__all__ = ("Account", "BudgetExceeded", "BudgetRule", "LeaseBook", "MoneyUnavailable", "Reservation")
