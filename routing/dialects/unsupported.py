"""What a provider cannot be asked for."""

from __future__ import annotations


class CannotCarry(Exception):
    """A part of the request has no counterpart at the provider, and an answer without it would mislead.
    ``param`` names it as the client wrote it: ``messages[0].content[1]``."""

    def __init__(self, param: str) -> None:
        super().__init__(param)
        self.param = param
