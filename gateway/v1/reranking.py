"""``/v1/rerank``: which documents fit a query best, in the words that Cohere, Jina and their like share."""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import Any

import orjson

from billing.token_usage import ESTIMATED, REPORTED, SEARCHES, TokenUsage, from_openai
from gateway.v1.answers import BadAnswer, PlainAnswer, decoded
from gateway.v1.facts import (
    BYTES_PER_TOKEN,
    Facts,
    boolean,
    decode,
    end_user_of,
    model_of,
    required,
    text,
    whole,
    wrong_type,
)
from routing.dialects import Dialect

# One search is a query with up to so many documents; a document counts once for each so many tokens of it
# (Cohere, "Pricing").
DOCUMENTS_PER_SEARCH = 100
TOKENS_PER_DOCUMENT = 500


def rerank_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a body with ``query``, ``documents`` (texts, or objects with a text), ``top_n`` and
    ``return_documents``. Raises InvalidRequest naming the parameter."""
    body = decode(raw)
    model = model_of(body)
    query = text(body, "query")
    documents = required(body, "documents")
    if not isinstance(documents, list):
        raise wrong_type("documents", "an array of texts or objects", documents)
    whole(body, "top_n", 1)
    boolean(body, "return_documents")
    asked = len(query.encode("utf-8", "replace"))
    size, most = 0, 0
    for position, document in enumerate(documents):
        if not isinstance(document, str | dict):
            raise wrong_type(f"documents[{position}]", "a string or an object", document)
        content = document if isinstance(document, str) else orjson.dumps(document).decode()
        length = len(content.encode("utf-8", "replace"))
        size += length
        most += max(1, ceil((length + asked) / TOKENS_PER_DOCUMENT))
    # A provider reads the query with every document.
    total = size + asked * len(documents)
    tokens = total // BYTES_PER_TOKEN + 1
    searches = Decimal(ceil(len(documents) / DOCUMENTS_PER_SEARCH))
    return Facts(
        "rerank",
        body,
        model,
        input_tokens=tokens,
        input_bound=total + 1,
        output_bound=0,
        end_user=end_user_of(body, end_user_header),
        units={SEARCHES: Decimal(ceil(most / DOCUMENTS_PER_SEARCH))},
        counted=TokenUsage(tokens, 0, 0, 0, 0, ESTIMATED, {SEARCHES: searches}),
    )


def rerank_answer(raw: bytes, facts: Facts, speaks: Dialect) -> PlainAnswer:
    """The answer as it came. Usage is tokens (Jina: ``usage``) or searches (Cohere:
    ``meta.billed_units.search_units``), whichever is told. Raises BadAnswer, ErrorAnswer."""
    answer = decoded(raw, facts.endpoint, speaks)
    results = answer.get("results")
    if not isinstance(results, list) or not all(_ranks(each) for each in results):
        raise BadAnswer("It has no results with index and relevance_score.")
    return PlainAnswer(raw, _usage(answer, facts), 0)


def _ranks(result: Any) -> bool:
    return isinstance(result, dict) and isinstance(result.get("index"), int) and "relevance_score" in result


def _usage(answer: dict[str, Any], facts: Facts) -> TokenUsage | None:
    """What is told, and for what is not told the estimate of the request."""
    counted, usage, meta = facts.counted, answer.get("usage"), answer.get("meta")
    told = from_openai(usage) if isinstance(usage, dict) else None
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    units = billed.get("search_units") if isinstance(billed, dict) else None
    if (
        isinstance(units, bool)
        or not isinstance(units, int | float)
        or not 0 < units <= len(facts.body["documents"]) * 1000
    ):
        units = None
    if counted is None or (told is None and units is None):
        return None
    tokens = told.prompt if told is not None else counted.input
    searches = counted.quantities[SEARCHES] if units is None else Decimal(str(units))
    return TokenUsage(tokens, 0, 0, 0, 0, REPORTED, {SEARCHES: searches})
