"""What it costs. The models stand in files by subject; import them from here."""

from billing.models.content import ContentLoss, RequestContent
from billing.models.detail import DetailRemoval
from billing.models.end_user import BlockedEndUser
from billing.models.exchange_rate import ExchangeRate
from billing.models.export import Export
from billing.models.ledger import (
    CUSTOMER_ACCOUNTS,
    AccountBalance,
    Grant,
    LedgerEntry,
    LedgerTransaction,
    ReconcileReport,
)
from billing.models.payment import Checkout, RedeemableCode
from billing.models.price import Price
from billing.models.quota import Budget, Lease, Quota
from billing.models.schedule import Schedule, ScheduleRecipient, ScheduleRun
from billing.models.statement import Statement, StatementLine, StatementNumber, StatementPosting
from billing.models.tag import TagRollup, TagSpanSum, TagValue
from billing.models.task import TaskRun
from billing.models.usage import (
    DeadLetter,
    DirtyBucket,
    UsageEvent,
    UsageRollup,
    UsageSpan,
    UsageSpanSum,
)

__all__ = (
    "CUSTOMER_ACCOUNTS",
    "AccountBalance",
    "BlockedEndUser",
    "Budget",
    "Checkout",
    "ContentLoss",
    "DeadLetter",
    "DetailRemoval",
    "DirtyBucket",
    "ExchangeRate",
    "Export",
    "Grant",
    "Lease",
    "LedgerEntry",
    "LedgerTransaction",
    "Price",
    "Quota",
    "ReconcileReport",
    "RedeemableCode",
    "RequestContent",
    "Schedule",
    "ScheduleRecipient",
    "ScheduleRun",
    "Statement",
    "StatementLine",
    "StatementNumber",
    "StatementPosting",
    "TagRollup",
    "TagSpanSum",
    "TagValue",
    "TaskRun",
    "UsageEvent",
    "UsageRollup",
    "UsageSpan",
    "UsageSpanSum",
)
