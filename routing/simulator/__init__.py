"""A simulated provider that speaks the OpenAI protocol and needs no account.

It depends on nothing else in this project. See docs/simulator.md.
"""

from routing.simulator.application import create_app
from routing.simulator.connection import ASGIApp
from routing.simulator.server import serve

__all__ = ["ASGIApp", "create_app", "serve"]
