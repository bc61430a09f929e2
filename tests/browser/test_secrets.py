"""A secret that was typed or shown is nowhere afterwards: not in a row, a file, Redis, a page or a download."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import openai
import pytest
from django.db import connection
from redis import Redis

from routing.models import Provider
from tests.browser.conftest import Browse
from tests.cast import PASSWORD
from tests.stack import Stack, Tenant, running_stack

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CREDENTIAL = "sk-upstream-7Qm2ZxVt9LwKc4Rb"
HOOK_PATH = "T0SECRET/B0SECRET/9fKq2mWzXv81"
PROMPT = "the merger with Ostrava closes on Friday"
HREF = re.compile(r'(?:href|src|hx-get)="([^"#]+)')
# Enough for every kind of page; more of them would be the same page of another row.
MOST_PAGES = 150


@pytest.fixture
def own_stack(
    _committing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Stack]:
    monkeypatch.setenv("EMAIL_URL", "consolemail://")
    monkeypatch.setenv("WEBHOOK_PRIVATE_ADDRESSES", "true")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    with running_stack(tmp_path) as stack:
        yield stack


@pytest.fixture
def base_url(own_stack: Stack) -> str:
    return own_stack.url


def forms_of(secret: str) -> set[bytes]:
    """The ways a careless program writes a secret down."""
    raw = secret.encode()
    return {raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"=")[:-1]}


def rows() -> Iterator[tuple[str, bytes]]:
    """Every row of every table, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            for (row,) in cursor.fetchall():
                yield f"table {table}", row.encode()


def files(*directories: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under the directories: logs, journals, exports."""
    for directory in directories:
        for path in directory.rglob("*"):
            if path.is_file():
                yield f"file {path.relative_to(directory)}", path.read_bytes()


def cached(url: str) -> Iterator[tuple[str, bytes]]:
    """Everything in Redis, names of keys included."""
    with Redis.from_url(url) as redis:
        for key in redis.scan_iter():
            kind = redis.type(key).decode()
            read = {
                "string": redis.get,
                "hash": redis.hgetall,
                "set": redis.smembers,
                "list": lambda name: redis.lrange(name, 0, -1),
                "zset": lambda name: redis.zrange(name, 0, -1, withscores=True),
                "stream": redis.xrange,
            }[kind]
            yield f"redis {key!r}", repr(key).encode() + repr(read(key)).encode()


def pages(page: Page, start: str) -> Iterator[tuple[str, bytes]]:
    """Every page and download that links lead to from ``start``."""
    area, waiting, seen = start, [start], {start}
    while waiting and len(seen) < MOST_PAGES:
        address = waiting.pop(0)
        answer = page.request.get(address)
        body = answer.body()
        yield f"page {address} ({answer.status})", body
        if "html" not in answer.headers.get("content-type", ""):
            continue
        for link in HREF.findall(body.decode()):
            found = urlsplit(urljoin(address, link.replace("&amp;", "&")))
            # The same page with other filters is one page.
            plain = found.path
            if plain.startswith(area) and plain not in seen:
                seen.add(plain)
                waiting.append(plain)


def leaks(places: Iterator[tuple[str, bytes]], secrets: dict[str, str]) -> set[tuple[str, str]]:
    """Which secret stands where."""
    wanted = {name: forms_of(secret) for name, secret in secrets.items()}
    return {
        (name, place)
        for place, text in places
        for name, forms in wanted.items()
        if any(form in text for form in forms)
    }


def sign_in(page: Page, email: str) -> None:
    page.goto("/accounts/login/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lambda url: "/accounts/" not in url)


def makes_a_key_and_a_channel(page: Page, tenant: Tenant) -> dict[str, str]:
    """As the owner; returns the secrets that were typed and shown."""
    sign_in(page, tenant.owner.user.email)
    here = f"/o/{tenant.organization.slug}"
    page.goto(f"{here}/keys/new/")
    page.get_by_label("Name", exact=True).fill("first-app")
    page.get_by_role("button", name="Make key").click()
    key = page.locator("#secret").inner_text()
    page.goto(f"{here}/notifications/")
    page.get_by_label("Send by").select_option("webhook")
    page.get_by_label("Name", exact=True).fill("On call")
    page.get_by_label("Webhook address").fill(f"http://127.0.0.1:9/services/{HOOK_PATH}")
    page.get_by_role("button", name="Add").click()
    signing = page.get_by_text("whsec_").first.inner_text()
    return {"key": key, "signing key": signing, "webhook path": HOOK_PATH, "password": PASSWORD}


def types_a_credential(page: Page, operator: str, provider: str) -> None:
    sign_in(page, operator)
    page.goto(f"/operator/providers/{provider}/")
    page.get_by_label("Credential").fill(CREDENTIAL)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("Take out").first.wait_for()


def asks_in_every_wrong_way(stack: Stack, secret: str) -> None:
    """A good request, and mistakes that bring the prompt or the key where an error might repeat them."""
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=secret, max_retries=0)
    ask = [{"role": "user", "content": PROMPT}]
    client.chat.completions.create(model="sim-small", messages=ask)  # type: ignore[arg-type]  # plain dicts
    for model, messages, more in (
        ("sim-small", PROMPT, {}),
        (secret, ask, {}),
        ("sim-small", ask, {"temperature": PROMPT}),
        ("sim-small", ask, {"max_tokens": secret}),
    ):
        with suppress(openai.APIStatusError):
            client.chat.completions.create(model=model, messages=messages, extra_body=more)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(openai.APIStatusError):
        client.get(f"/models/{secret}?key={secret}", cast_to=object)
    twisted = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=f"{secret}x", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        twisted.models.list()


def test_a_secret_that_was_typed_or_shown_is_nowhere(
    own_stack: Stack, browse: Browse, slug: str, tmp_path: Path
) -> None:
    tenant = own_stack.tenant(slug)
    operator = own_stack.tenant(f"{slug}-op").owner.user
    operator.is_staff = operator.is_superuser = True
    operator.save(update_fields=["is_staff", "is_superuser"])
    Provider.objects.create(name=f"{slug}-p", kind="openai", base_url="http://127.0.0.1:9/v1")
    secrets = browse(lambda page: makes_a_key_and_a_channel(page, tenant))
    browse(lambda page: types_a_credential(page, operator.email, f"{slug}-p"))
    secrets |= {"credential": CREDENTIAL, "prompt": PROMPT}
    asks_in_every_wrong_way(own_stack, secrets["key"])
    own_stack.settled()
    seen: list[str] = []

    def looked_at(page: Page, email: str, start: str) -> set[tuple[str, str]]:
        sign_in(page, email)
        found = list(pages(page, start))
        seen.extend(place for place, _ in found)
        return leaks(iter(found), secrets)

    found = browse(lambda page: looked_at(page, tenant.owner.user.email, f"/o/{slug}/"))
    found |= browse(lambda page: looked_at(page, operator.email, "/operator/"))
    found |= browse(lambda page: looked_at(page, operator.email, "/admin/"))
    found |= leaks(rows(), secrets)
    found |= leaks(files(tmp_path), secrets)
    found |= leaks(cached(own_stack.environment["REDIS_URL"]), secrets)
    assert sorted(found) == []
    # It looked where such things would be.
    for part in (
        "/keys/",
        "/requests/req_",
        "usage.csv",
        f"/operator/providers/{slug}-p/",
        "/admin/tenants/",
    ):
        assert any(part in place for place in seen), part
    everything = "".join(seen)
    assert "(500)" not in everything


def test_what_is_written_down_is_found_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"x" + CREDENTIAL.encode())
    (tmp_path / "b.log").write_bytes(b"y" + CREDENTIAL.encode().hex().encode())
    (tmp_path / "c.log").write_bytes(b"z" + base64.b64encode(CREDENTIAL.encode()))
    (tmp_path / "d.log").write_bytes(b"nothing")
    assert leaks(files(tmp_path), {"it": CREDENTIAL}) == {
        ("it", "file a.log"),
        ("it", "file b.log"),
        ("it", "file c.log"),
    }
