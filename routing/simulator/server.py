"""Running the simulator: one process, one event loop, uvicorn."""

import argparse
import asyncio
import logging
import socket
import sys
from pathlib import Path

import uvicorn

from routing.simulator.application import create_app
from routing.simulator.connection import SimulatorProtocol

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8100


def _worth_telling(entry: logging.LogRecord) -> bool:
    """False for a request that stopping the server cut off: the record tells of it already."""
    error = entry.exc_info[1] if entry.exc_info else None
    return not isinstance(error, asyncio.CancelledError)


def serve(host: str, port: int, log_path: Path | None = None, *, require_key: bool = False) -> None:
    """Serve until stopped by SIGINT or SIGTERM.

    Prints `simulator listening on http://HOST:PORT` once the port is open; port 0 takes a free
    one. Raises OSError if the port or the log file cannot be opened.
    """
    app = create_app(log_path, require_key=require_key)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=SimulatorProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=4096,
        # Longer than clients keep idle connections, so that they and not this side close them.
        timeout_keep_alive=300,
        timeout_graceful_shutdown=1,
    )
    logging.getLogger("uvicorn.error").addFilter(_worth_telling)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(4096)
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(f"simulator listening on http://{shown}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[listener])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the simulator's options to a command's parser."""
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port, 0 for a free one (default %(default)s)"
    )
    parser.add_argument("--log", type=Path, default=None, help="append a JSON line per request to this file")
    parser.add_argument("--require-key", action="store_true", help="refuse requests without a bearer key")


def main(arguments: list[str] | None = None) -> None:
    """The command `python -m routing.simulator`."""
    parser = argparse.ArgumentParser(
        prog="routing.simulator", description="A simulated provider that speaks the OpenAI protocol."
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    serve(options.host, options.port, options.log, require_key=options.require_key)
