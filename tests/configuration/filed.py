"""The sample file, changed as a test needs it, and applied."""

from __future__ import annotations

from pathlib import Path

from gateway.configuration.apply import apply_configuration, load
from gateway.configuration.changes import Outcome

SAMPLE = (Path(__file__).parent / "sample.yaml").read_text()
ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-provider-0123456789abcdef",
    "ANN_PASSWORD": "correct horse battery",
    "SEARCH_KEY": "sk-search-0123456789abcdefghijklmnopqrstuv",
}


def changed(*replacements: tuple[str, str], text: str = SAMPLE) -> str:
    """``text`` with each first string, which must be in it once, replaced by the second."""
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def line_of(word: str, text: str = SAMPLE) -> int:
    """The line, from 1, of the first place where ``word`` stands."""
    return text[: text.index(word)].count("\n") + 1


def apply(text: str = SAMPLE, *, plan: bool = False, prune: bool = False) -> Outcome:
    """Apply ``text`` as the file weir.yaml."""
    configuration, document = load(text, "weir.yaml", ENVIRONMENT)
    return apply_configuration(configuration, document, plan=plan, prune=prune)


def shown(outcome: Outcome) -> list[str]:
    """The changes as they are printed."""
    return [str(change) for change in outcome.changes]
