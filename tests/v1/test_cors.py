"""Pages of the origins that an organization names call ``/v1`` from a browser; nobody else's pages do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.core.exceptions import ValidationError

from tenants.models import origin_validator
from tenants.services.organizations import suspend_organization
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance

# Each worker answers some of these connections.
TRIES = 6


def asked(tenant: Tenant, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    """A preflight, as a browser sends it for the OpenAI SDK, on a connection of its own."""
    sent = {
        "Origin": origin_of(tenant),
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return httpx.options(tenant.stack.url + path, headers=sent)


def origin_of(tenant: Tenant) -> str:
    """The origin of the tenant's own page, which nobody else names."""
    return f"https://{tenant.organization.slug}.example"


def ask(tenant: Tenant, origin: str | None, model: str = "sim-small", **body: Any) -> httpx.Response:
    headers = {} if origin is None else {"Origin": origin}
    message = {"model": model, "messages": [{"role": "user", "content": "hello"}], **body}
    with tenant.http() as http:
        return http.post("/v1/chat/completions", json=message, headers=headers)


@pytest.fixture
def named(stack: Stack, slug: str) -> Iterator[Tenant]:
    """An organization that names its page's origin, as both workers know."""
    made = stack.tenant(slug, cors_origins=[f"https://{slug}.example"])
    wait_until(lambda: all(asked(made).status_code == 204 for _ in range(TRIES)))
    yield made
    stack.settled()
    books_balance(made)


def test_a_preflight_is_answered_without_a_key(named: Tenant) -> None:
    answer = asked(named)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin_of(named)
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert answer.headers["access-control-max-age"] == "3600"
    assert "origin" in answer.headers["vary"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_preflight_names_what_the_address_can_do(named: Tenant) -> None:
    told = asked(named, "/v1/responses/resp_1").headers["access-control-allow-methods"]
    assert told == "GET, DELETE"
    assert asked(named, "/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    "changed",
    [{"Origin": "https://evil.example"}, {"Access_Control_Request_Method": ""}, {"Origin": "null"}],
)
def test_other_options_are_requests_without_a_key(named: Tenant, changed: dict[str, str]) -> None:
    sent = {"Origin": origin_of(named), "Access-Control-Request-Method": "POST"}
    sent |= {name.replace("_", "-"): value for name, value in changed.items()}
    sent = {name: value for name, value in sent.items() if value}
    answer = httpx.options(f"{named.stack.url}/v1/chat/completions", headers=sent)
    assert answer.status_code == 401
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_headers_that_are_no_names_are_not_repeated(named: Tenant) -> None:
    answer = asked(named, Access_Control_Request_Headers='x"<script>')
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize("stream", [False, True])
def test_the_organizations_page_may_read_the_answer(named: Tenant, stream: bool) -> None:
    answer = ask(named, origin_of(named), stream=stream)
    assert answer.status_code == 200
    assert answer.headers.get_list("access-control-allow-origin") == [origin_of(named)]
    assert answer.headers["access-control-expose-headers"] == "*"
    assert answer.headers["vary"] == "origin"


def test_the_organizations_page_may_read_an_error(named: Tenant) -> None:
    answer = ask(named, origin_of(named), model="nothing")
    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == origin_of(named)


def test_a_page_that_another_organization_names_cannot_read_the_answer(stack: Stack, named: Tenant) -> None:
    other = stack.tenant(f"{named.organization.slug}-b")
    answer = ask(other, origin_of(named))
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]
    stack.settled()
    books_balance(other)


def test_an_answer_to_no_page_has_no_permission_and_says_that_it_depends(named: Tenant) -> None:
    answer = ask(named, None)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "origin"


def test_a_repeated_answer_is_for_the_page_that_asks_now(named: Tenant) -> None:
    message = {"model": "sim-small", "messages": [{"role": "user", "content": "hello"}]}
    with named.http() as http:
        first, second = (
            http.post(
                "/v1/chat/completions", json=message, headers={"Idempotency-Key": "once", "Origin": origin}
            )
            for origin in (origin_of(named), "https://other.example")
        )
    assert first.headers["access-control-allow-origin"] == origin_of(named)
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert second.content == first.content
    assert "access-control-allow-origin" not in second.headers


def test_a_suspended_organizations_page_is_nobodys(stack: Stack, named: Tenant) -> None:
    suspend_organization(acting_user=None, organization=named.organization)
    wait_until(lambda: all(asked(named).status_code == 401 for _ in range(TRIES)))


PAGE = """async ([url, key]) => {
  const answer = await fetch(url + "/v1/chat/completions", {
    method: "POST",
    headers: {"Authorization": "Bearer " + key, "Content-Type": "application/json", "X-Stainless-OS": "x"},
    body: JSON.stringify({model: "sim-small", messages: [{role: "user", content: "hello"}]}),
  });
  const told = ["x-request-id", "x-weir-deployment"].map((name) => answer.headers.get(name));
  return [answer.status, told, (await answer.json()).object];
}"""


@pytest.mark.browser
def test_a_page_in_a_browser_reads_answer_and_headers(chromium: str, named: Tenant) -> None:
    """A real preflight: the page's origin is another than Weir's."""
    from playwright.sync_api import Error, sync_playwright

    def visits() -> tuple[Any, str]:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            # Its page counts as one from afar, and Weir is on this machine.
            page = browser.new_context(permissions=["local-network-access"]).new_page()
            page.set_default_timeout(30_000)
            page.route("**/page", lambda route: route.fulfill(body="<p>app", content_type="text/html"))
            call = [named.stack.url, named.secret]
            page.goto(origin_of(named) + "/page")
            read = page.evaluate(PAGE, call)
            page.goto("https://evil.example/page")
            try:
                page.evaluate(PAGE, call)
            except Error as error:
                return read, error.message
            finally:
                browser.close()
            return read, ""

    # Playwright keeps an event loop in its thread, in which Django refuses to ask the database.
    with ThreadPoolExecutor(max_workers=1) as thread:
        (status, told, kind), refused = thread.submit(visits).result()
    assert (status, kind) == (200, "chat.completion")
    assert told[0].startswith("req_")
    assert told[1] == "sim-small-0-sim-small"
    assert "Failed to fetch" in refused


@pytest.mark.parametrize(
    "origin", ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "https://a"]
)
def test_an_origin_is_taken(origin: str) -> None:
    origin_validator(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://App.example.com",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://user@app.example.com",
        "https://app.example.com\n",
        "file:///x",
    ],
)
def test_what_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="Write an origin as browsers do"):
        origin_validator(origin)
