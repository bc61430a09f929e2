"""Forms: pictures to edit and sound to write down, whatever their size and the order of their fields."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from billing.services.quotas import set_quota
from gateway.v1.transcriptions import wav_seconds
from routing.simulator.media import png
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_media import priced
from tests.whole.test_leaks import connected

MEGABYTE = 1024 * 1024


def wav(seconds: int, rate: int = 8_000) -> bytes:
    """A WAV file of silence, one byte a sample."""
    data = bytes(seconds * rate)
    form = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def hear(
    tenant: Tenant, model: str, sound: Any = None, path: str = "transcriptions", **more: Any
) -> httpx.Response:
    headers = more.pop("headers", {})
    with tenant.http() as http:
        return http.post(
            f"/v1/audio/{path}",
            data={"model": model, **more},
            files={"file": ("a.wav", wav(12) if sound is None else sound)},
            headers=headers,
        )


def test_the_seconds_that_the_provider_reports_are_charged(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"second": "0.0001"})
    sdk = tenant.client()
    sound = ("a.wav", io.BytesIO(wav(12)))
    told = sdk.audio.transcriptions.create(model=model, file=sound, extra_body={"user": slug})
    assert told.text.split() == ["[simulated]", *["word"] * 11]
    sdk.audio.translations.create(model=model, file=("a.wav", io.BytesIO(wav(3))))
    first, second = events(tenant)
    assert (first.endpoint, first.charge, first.usage_source) == (
        "audio.transcriptions",
        Decimal("0.0012"),
        "reported",
    )
    assert (first.quantities["seconds"], first.end_user, first.provider_model) == (
        "12.000",
        slug,
        "sim-small",
    )
    assert (second.endpoint, second.charge) == ("audio.translations", Decimal("0.0003"))


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_an_answer_that_is_text_is_charged_by_the_header_of_the_file(
    tenant: Tenant, slug: str, form: str
) -> None:
    model = priced(tenant, slug, {"second": "0.0001"})
    told = hear(tenant, model, response_format=form)
    assert told.text.startswith("[simulated] word")
    assert told.headers["content-type"].startswith("text/")
    (event,) = events(tenant)
    assert (event.charge, event.usage_source) == (Decimal("0.0012"), "estimated")


def test_without_a_header_the_seconds_are_estimated_by_the_size(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"second": "0.0001"})
    hear(tenant, model, b"x" * 40_000, response_format="text")
    (event,) = events(tenant)
    assert (event.charge, event.usage_source) == (Decimal("0.001"), "estimated")


def test_a_file_may_come_before_the_model(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"second": "0.0001"})
    parts: list[Any] = [
        ("file", ("a.wav", wav(5), "audio/wav")),
        ("response_format", (None, "verbose_json")),
        ("model", (None, model)),
    ]
    with tenant.http() as http:
        told = http.post("/v1/audio/transcriptions", files=parts)
    assert told.json()["duration"] == 5.0


def test_another_deployment_gets_the_same_form(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"second": "0.0001"}, "sim-503", "sim-small")
    told = hear(tenant, model, wav(100))
    assert told.headers["x-weir-attempts"] == "2"
    assert told.json()["usage"] == {"type": "duration", "seconds": 100.0}


def test_pictures_are_edited_and_each_that_was_sent_counts(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"input": "1", "image_input": "10", "image_output": "40"})
    made = tenant.client().images.edit(
        model=model, image=[("a.png", png(1)), ("b.png", png(2))], prompt="a grey cat", n=2
    )
    assert made.data is not None
    assert [base64.b64decode(each.b64_json or "")[:4] for each in made.data] == [b"\x89PNG"] * 2
    (event,) = events(tenant)
    # 3 at 1, 20 at 10 and 200 at 40 per million.
    assert (event.endpoint, event.charge) == ("images.edits", Decimal("0.008203"))


def test_without_a_price_nothing_is_asked(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"character": "1"})
    refused = hear(tenant, model, user=slug)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_priced")
    assert tenant.stack.simulator.log(slug) == []


def test_as_many_seconds_are_reserved_as_the_file_could_have(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"second": "0.0001"})
    # 75,000 bytes are 100 seconds at most, at 0.0001.
    set_quota(
        acting_user=None,
        scope="key",
        target=tenant.key,
        metric="budget",
        limit=Decimal("0.0099"),
        period="day",
    )
    wait_until(lambda: hear(tenant, model, b"x" * 75_000, user=f"{slug}-w").status_code == 429)
    refused = hear(tenant, model, b"x" * 75_000, user=slug)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert tenant.stack.simulator.log(slug) == []
    assert hear(tenant, model, b"x" * 7_500, user=slug).status_code == 200


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({"model": "sim-small"}, {"other": ("a", b"a")}, "file"),
        ({"model": "sim-small"}, {"file": ("a", b"")}, "file"),
        ({}, {"file": ("a", b"a")}, "model"),
    ],
)
def test_a_wrong_field_is_named(
    tenant: Tenant, fields: dict[str, str], files: dict[str, Any], param: str
) -> None:
    with tenant.http() as http:
        refused = http.post("/v1/audio/transcriptions", data=fields, files=files)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("application/json", b"{}", "invalid_content_type"),
        ("multipart/form-data", b"", "invalid_content_type"),
        ("multipart/form-data; boundary=b", b"", "invalid_form"),
        ("multipart/form-data; boundary=b", b"nothing of the kind", "invalid_form"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            "invalid_form",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx',
            "invalid_form",
        ),
    ],
)
def test_what_is_no_form_is_refused(tenant: Tenant, kind: str, body: bytes, code: str) -> None:
    with tenant.http() as http:
        refused = http.post("/v1/audio/transcriptions", content=body, headers={"content-type": kind})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)


def test_the_same_form_with_another_boundary_is_the_same_request(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"second": "0.0001"})
    headers = {"Idempotency-Key": slug}
    first, again = (hear(tenant, model, headers=headers) for _ in range(2))
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert hear(tenant, model, wav(13), headers=headers).status_code == 409


def test_a_client_that_leaves_in_its_upload_takes_nothing_with_it(tenant: Tenant) -> None:
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: weir\r\n"
        f"Authorization: Bearer {tenant.secret}\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    with connected(tenant.stack) as client:
        client.sendall(
            head.encode() + b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nxxx'
        )
    wait_until(lambda: bool(events(tenant)))
    (event,) = events(tenant)
    assert (event.end_reason, event.charge) == ("client_gone", 0)


def test_a_form_that_is_too_large_is_refused_by_its_length(tenant: Tenant) -> None:
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: weir\r\n"
        f"Authorization: Bearer {tenant.secret}\r\nContent-Length: {257 * MEGABYTE}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    with connected(tenant.stack) as client:
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


def workers(stack: Stack) -> list[int]:
    assert stack.server is not None
    found = subprocess.run(
        ["pgrep", "-P", str(stack.server.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    return [int(pid) for pid in found]


def test_an_upload_of_200_megabytes_adds_under_20_to_memory(
    tenant: Tenant, slug: str, tmp_path: Path
) -> None:
    model = priced(tenant, slug, {"second": "0.0000001"})
    for _ in range(8):
        hear(tenant, model)
    large = tmp_path / "large.mp3"
    with large.open("wb") as file:
        file.truncate(200 * MEGABYTE)
    pids = workers(tenant.stack)
    before = {pid: resident(pid) for pid in pids}
    most, stop = dict(before), Event()

    def look() -> None:
        while not stop.wait(0.02):
            for pid in pids:
                most[pid] = max(most[pid], resident(pid))

    looking = Thread(target=look)
    looking.start()
    try:
        with tenant.http() as http, large.open("rb") as sound:
            told = http.post(
                "/v1/audio/transcriptions", data={"model": model}, files={"file": sound}, timeout=300
            )
    finally:
        stop.set()
        looking.join()
    # 200 MiB at 16,000 bytes a second.
    assert told.json()["usage"]["seconds"] == 13_108
    added = max(most[pid] - before[pid] for pid in pids)
    assert added < 20 * 1_000_000, added


@pytest.mark.parametrize("seconds", [1, 60])
def test_the_length_of_a_wav_file_stands_in_its_header(seconds: int) -> None:
    sound = wav(seconds)
    assert wav_seconds(sound[:4096], len(sound)) == seconds
    assert wav_seconds(sound[:30], len(sound)) is None
    assert wav_seconds(b"ID3" + sound, len(sound)) is None
    # A length that was left open.
    opened = sound[:40] + b"\xff\xff\xff\xff" + sound[44:]
    assert wav_seconds(opened[:4096], len(opened)) == seconds
