"""Pictures that come in stages and transcripts as they are heard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import openai
import pytest
from pytest_django.plugin import DjangoDbBlocker

from billing.services.prices import set_price
from gateway.v1.images import generation_facts
from gateway.v1.media_streams import MediaScanner
from routing.models import GroupDeployment, Provider
from routing.simulator.media import png
from tests.conftest import COPIES, committing
from tests.dialects.player import Recording, running_player
from tests.dialects.test_wire import JSON, Played
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model
from tests.v1.test_uploads import wav


def stream_of(*told: dict[str, Any], named: bool = True) -> bytes:
    """Events on the wire; those of transcripts have no names."""
    return b"".join(
        (f"event: {one['type']}\n" if named else "").encode() + f"data: {json.dumps(one)}\n\n".encode()
        for one in told
    )


def picture(kind: str, stage: str, **members: Any) -> dict[str, Any]:
    return {"type": f"{kind}.{stage}", "b64_json": "aGk=", "created_at": 1, "size": "1024x1024", **members}


PICTURE_USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
    "output_tokens": 200,
    "total_tokens": 210,
}
MADE, EDITED = (
    stream_of(
        picture(kind, "partial_image", partial_image_index=0),
        picture(kind, "completed", usage=PICTURE_USAGE),
    )
    for kind in ("image_generation", "image_edit")
)
DELTAS = [{"type": "transcript.text.delta", "delta": text} for text in ("Grüß ", "Gott")]
HEARD = {
    "type": "transcript.text.done",
    "text": "Grüß Gott",
    "usage": {
        "type": "tokens",
        "input_tokens": 30,
        "input_token_details": {"audio_tokens": 30, "text_tokens": 0},
        "output_tokens": 4,
        "total_tokens": 34,
    },
}
TRANSCRIPT = stream_of(*DELTAS, HEARD, named=False) + b"data: [DONE]\n\n"
RECORDINGS = {
    "image": Recording(MADE),
    "image-cut": Recording(MADE.partition(b"event: image_generation.completed")[0]),
    "image-error": Recording(
        MADE.partition(b"event: image_generation.completed")[0]
        + b'event: error\ndata: {"type":"error","error":{"code":"moderation_blocked","message":"No org-123"}}\n\n'
    ),
    "edit": Recording(EDITED),
    "whole-image": Recording(
        json.dumps({"created": 1, "data": [{"b64_json": "aGk="}], "usage": PICTURE_USAGE}).encode(),
        content_type=JSON,
    ),
    "no-image": Recording(b'{"created":1,"data":[]}', content_type=JSON),
    "transcript": Recording(TRANSCRIPT),
    "whole-transcript": Recording(
        b'{"text":"Gr\xc3\xbc\xc3\x9f Gott","usage":{"type":"duration","seconds":3}}', content_type=JSON
    ),
    "text-transcript": Recording("Grüß Gott\n".encode(), content_type="text/plain"),
}


@pytest.fixture(scope="module")
def played(stack: Stack, django_db_blocker: DjangoDbBlocker) -> Iterator[Played]:
    prefix = f"media-{uuid4().hex[:6]}"
    with running_player(RECORDINGS) as player:
        with committing(django_db_blocker, COPIES["stack"]):
            for name in RECORDINGS:
                model = f"{prefix}-{name}"
                Provider.objects.create(name=model, kind="openai", base_url=player.base_url(name))
                deployment = stack.deployment(model, "their-model", cost=None, provider=model)
                # 10 in at 5 and 200 of a picture at 40 per million; a second at 0.0001.
                price = (
                    {"input": "5", "image_output": "40"} if "transcript" not in name else {"second": "0.0001"}
                )
                terms: Any = {of: Decimal(rate) for of, rate in price.items()}
                set_price(acting_user=None, deployment=deployment, **terms)
                GroupDeployment.objects.create(group=stack.group(model, price=None), deployment=deployment)
        yield Played(player, prefix)


@pytest.fixture
def sdk(played: Played, tenant: Tenant) -> openai.OpenAI:
    with tenant.http() as http:
        wait_for_model(http, played.model(list(RECORDINGS)[-1]))
    return tenant.client()


def test_a_picture_comes_in_stages_and_is_charged_by_its_usage(
    played: Played, sdk: openai.OpenAI, tenant: Tenant
) -> None:
    told = list(
        sdk.images.generate(model=played.model("image"), prompt="a cat", stream=True, partial_images=1)
    )
    assert [one.type for one in told] == ["image_generation.partial_image", "image_generation.completed"]
    asked = {"model": "their-model", "prompt": "a cat", "stream": True, "partial_images": 1}
    assert played.player.asked["image"] == asked
    (event,) = events(tenant)
    assert (event.streamed, event.endpoint, event.charge) == (True, "images.generations", Decimal("0.00805"))
    assert event.quantities == {"images": "1", "image_output": "200"}


def test_a_model_that_ignores_the_wish_for_stages_gives_its_picture_at_once(
    played: Played, sdk: openai.OpenAI, tenant: Tenant
) -> None:
    (one,) = list(sdk.images.generate(model=played.model("whole-image"), prompt="a cat", stream=True))
    assert (one.type, one.b64_json, one.created_at) == ("image_generation.completed", "aGk=", 1)
    (event,) = events(tenant)
    assert (event.end_reason, event.charge) == ("completed", Decimal("0.00805"))


def test_an_answer_without_a_picture_is_an_error_in_a_stream_too(played: Played, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        list(sdk.images.generate(model=played.model("no-image"), prompt="a cat", stream=True))


def test_an_edited_picture_does_too(played: Played, sdk: openai.OpenAI, tenant: Tenant) -> None:
    told = list(
        sdk.images.edit(
            model=played.model("edit"), prompt="a cat", image=("a.png", png(9)), stream=True, partial_images=1
        )
    )
    assert [one.type for one in told] == ["image_edit.partial_image", "image_edit.completed"]
    assert b'name="stream"' in played.player.asked["edit"]
    (event,) = events(tenant)
    assert (event.endpoint, event.charge) == ("images.edits", Decimal("0.00805"))


@pytest.mark.parametrize("name", ["image-cut", "image-error"])
def test_a_picture_that_never_came_whole_is_an_error(
    played: Played, sdk: openai.OpenAI, tenant: Tenant, name: str
) -> None:
    seen = []
    with pytest.raises(openai.APIError) as caught:
        for one in sdk.images.generate(model=played.model(name), prompt="a cat", stream=True):
            seen.append(one.type)  # noqa: PERF401  # what came before the error counts
    assert seen == ["image_generation.partial_image"]
    assert "org-123" not in str(caught.value)
    (event,) = events(tenant)
    assert event.end_reason == "cut"


def test_a_transcript_comes_as_it_is_heard(played: Played, sdk: openai.OpenAI, tenant: Tenant) -> None:
    told = list(
        sdk.audio.transcriptions.create(
            model=played.model("transcript"), file=("a.wav", wav(3)), response_format="json", stream=True
        )
    )
    assert [one.type for one in told] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(one.delta for one in told if one.type == "transcript.text.delta") == "Grüß Gott"
    (event,) = events(tenant)
    # Tokens are reported: the seconds are those of the file.
    assert (event.charge, event.quantities["seconds"], event.output_tokens) == (Decimal("0.0003"), "3.000", 4)


@pytest.mark.parametrize("name", ["whole-transcript", "text-transcript"])
def test_a_model_that_ignores_the_wish_for_a_stream_says_all_at_once(
    played: Played, sdk: openai.OpenAI, tenant: Tenant, name: str
) -> None:
    form: Any = "text" if name.startswith("text") else "json"
    told: Any = sdk.audio.transcriptions.create(
        model=played.model(name), file=("a.wav", wav(3)), response_format=form, stream=True
    )
    (one,) = list(told)
    assert (one.type, one.text.strip()) == ("transcript.text.done", "Grüß Gott")
    (event,) = events(tenant)
    assert event.charge == Decimal("0.0003")


@pytest.mark.parametrize("raw", [MADE, TRANSCRIPT], ids=["picture", "transcript"])
def test_a_cut_at_any_byte_changes_nothing(raw: bytes) -> None:
    facts = generation_facts(b'{"model": "m", "prompt": "a", "stream": true}', "")

    def scan(*pieces: bytes) -> tuple[bytes, bool, Any]:
        scanner = MediaScanner(facts)
        sent = b"".join(scanner.feed(piece) for piece in pieces) + scanner.finish()
        return sent + scanner.closing(None, None), scanner.complete, scanner.usage

    expected = scan(raw)
    assert expected[1]
    assert expected[0].count(b"event: ") == raw.count(b"data: {")
    for cut in range(1, len(raw)):
        assert scan(raw[:cut], raw[cut:]) == expected, cut
