"""`manage.py demo`: a simulated provider and a small tenant, to try Weir with."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway.configuration.apply import apply_configuration, load
from gateway.configuration.demonstration import (
    ORGANIZATION,
    OWNER,
    demo_configuration,
    keep_secrets,
    key_works,
    only_missing,
    owner_password,
)
from gateway.configuration.problems import ConfigurationError


class Command(BaseCommand):
    """Set up what is missing of the demo, and say how to use it."""

    help = "Set up the demo tenant over a simulated provider. A second run undoes no changes."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the addresses of the simulator, of this gateway and of a local model."""
        parser.add_argument("--simulator-url", required=True, help="where `manage.py simulator` listens")
        parser.add_argument("--base-url", default=settings.PUBLIC_URL, help="where people reach this gateway")
        parser.add_argument(
            "--model-url", "--smollm2-url", help="a server with a small real model, offered as smollm2"
        )
        parser.add_argument("--model-name", default="smollm2-135m", help="what that server calls the model")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Apply the demo's configuration and print where to go."""
        text = demo_configuration(options["simulator_url"], options["model_url"], options["model_name"])
        kept, made_now = keep_secrets(settings.WEIR_DATA_DIR)
        try:
            configuration, document = load(text, "demo", {"PASSWORD": kept.password, "KEY": kept.key})
            wanted = configuration if made_now else only_missing(configuration)
            # A prune of the operator's own file must not take the demo away.
            apply_configuration(wanted, document, remember=False)
        except ConfigurationError as error:
            raise CommandError(f"The demo cannot be set up:\n{error}") from None
        password = owner_password(kept, made_now=made_now)
        base = options["base_url"].rstrip("/")
        body = json.dumps(
            {"model": "fast", "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
        )
        try_line = (
            f"curl -N {base}/v1/chat/completions -H 'Authorization: Bearer {kept.key}' "
            f"-H 'Content-Type: application/json' -d '{body}'"
        )
        lines = [
            f"Console   {base}/o/{ORGANIZATION}/",
            f"Sign in   {OWNER}   password: {password or '(changed since)'}",
            f"API       {base}/v1",
            f"Key       {kept.key if key_works(kept) else '(revoked or replaced since)'}",
            f"Models    {', '.join(group.name for group in configuration.model_groups)}",
            f"Try       {try_line}",
        ]
        self.stdout.write("\n".join(lines))
