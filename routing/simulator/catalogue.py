"""The models the simulator lists. It answers to any other name that begins with `sim` too."""

from typing import Any
from urllib.parse import unquote

from routing.simulator.behaviour import FAULTS, is_simulated
from routing.simulator.failures import unknown_model

MODEL_CREATED = 1_767_225_600  # 2026-01-01, for every model

_LISTED = (
    "sim-small",
    "sim-large",
    "sim-embed",
    "sim-slow",
    "sim-words-40",
    "sim-fast",
    "sim-429-once",
    *(f"sim-{name}" for name in sorted(FAULTS)),
)


def models(path: str) -> dict[str, Any]:
    """The list of models, or the one the path names. Raises SimulatedError (404) for one not simulated."""
    if path == "/v1/models":
        return {"object": "list", "data": [_model_object(name) for name in _LISTED]}
    name = unquote(path.removeprefix("/v1/models/"))
    if not is_simulated(name):
        raise unknown_model(name)
    return _model_object(name)


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": MODEL_CREATED, "owned_by": "simulator"}
