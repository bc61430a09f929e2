"""Proves that statements still say what the ledger says."""

from __future__ import annotations

from typing import Any

# Each row: the organization's slug, what is compared, the statement, the figure expected, the one found.
_COMPARISONS = (
    """
SELECT o.slug, 'statement and its lines', s.number, s.closing - s.opening, coalesce(l.amount, 0)
FROM billing_statement s JOIN tenants_organization o ON o.id = s.organization_id
LEFT JOIN (SELECT statement_id, sum(amount) AS amount FROM billing_statementline GROUP BY 1) AS l
    ON l.statement_id = s.id
WHERE s.closing - s.opening <> coalesce(l.amount, 0)
""",
    """
SELECT o.slug, 'statement and ledger', s.number, coalesce(e.amount, 0), s.closing - s.opening
FROM billing_statement s JOIN tenants_organization o ON o.id = s.organization_id
LEFT JOIN (
    SELECT p.statement_id, -sum(e.amount) AS amount
    FROM billing_statementposting p JOIN billing_ledgerentry e ON e.transaction_id = p.posting_id
    WHERE e.account IN ('wallet', 'grants', 'receivable') GROUP BY 1
) AS e ON e.statement_id = s.id
WHERE s.closing - s.opening <> coalesce(e.amount, 0)
""",
    """
SELECT slug, 'opening balance and the closing before', number, before, opening FROM (
    SELECT o.slug, s.number, s.opening,
        coalesce(lag(s.closing) OVER (PARTITION BY s.organization_id ORDER BY s.ends_at), 0) AS before
    FROM billing_statement s JOIN tenants_organization o ON o.id = s.organization_id
) AS chain WHERE opening <> before
""",
    # Postings of an organization are numbered in the order of their commits.
    """
SELECT o.slug, 'postings left out of a statement', s.number, 0, count(*)
FROM (SELECT DISTINCT ON (organization_id) * FROM billing_statement ORDER BY organization_id, ends_at DESC) AS s
JOIN tenants_organization o ON o.id = s.organization_id
JOIN billing_ledgertransaction t ON t.organization_id = s.organization_id
WHERE coalesce(t.usage_hour, t.posted_at) < s.ends_at
    AND t.id < (SELECT max(posting_id) FROM billing_statementposting WHERE statement_id = s.id)
    AND NOT EXISTS (SELECT FROM billing_statementposting p WHERE p.posting_id = t.id)
GROUP BY o.slug, s.number
""",
    """
SELECT '', 'numbers of statements', to_char(n.month, 'YYYY-MM'), n.last, count(s.id)
FROM billing_statementnumber n LEFT JOIN billing_statement s ON s.month = n.month
GROUP BY n.month, n.last HAVING n.last <> count(s.id)
""",
)


def compare(cursor: Any) -> list[tuple[str, str, str, Any, Any]]:
    """What differs: slug (empty: the platform), what, where, the figure expected and the one found."""
    found: list[tuple[str, str, str, Any, Any]] = []
    for statement in _COMPARISONS:
        cursor.execute(f"{statement} ORDER BY 1, 3")
        found += cursor.fetchall()
    return found
