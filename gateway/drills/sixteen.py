"""Sixteen faults: each at a primary that has a fallback, seen by a caller in a hurry and by the provider."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.db import connection
from pyreqwest.exceptions import PyreqwestError

from billing.services.prices import set_price
from gateway.drills import books, callers, payers
from gateway.drills.callers import MILLION
from gateway.drills.ground import DrillError, Ground, wait_until
from gateway.drills.payers import COST, PRICE, Payer
from gateway.drills.verdict import Verdict
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider

# Seconds, at scale 1. The caller waits for the whole of its answer for so long.
DEADLINE = 30.0
SILENCE, LATE, STALL = 120.0, 20.0, 30.0
# What a gateway has left of the deadline when it gives up on a provider (``USABLE`` in gateway/v1/turns.py). The
# machine is no faster at a smaller scale, so there the caller waits for so much longer than it says.
LEEWAY = 3.0
FLAPPING_SECONDS, FLAPPING_REQUESTS = 60.0, 20
# What the provider asks for with a 429, at any scale, since circuits keep their own time.
RETRY_AFTER = 5
ANSWER = "sim-small"
WORDS = 60
# A fault in a row so long, at one worker, opens a circuit; its shortest pause (routing/health.py).
FAULTS, PAUSE = 5, 1.6
SHIP_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and what a good gateway makes of it: a whole answer, or for ``breaks`` streams an honest error.

    ``most(workers, seconds)`` is how often the primary may be asked at most; else once a request.
    """

    name: str
    primary: str
    fallback: str = ANSWER
    breaks: bool = False
    # Where the fallback is a group of its own, what leads there.
    reason: str = ""
    # Whether the group has broken streams continued.
    resume: bool = False
    requests: int = 4
    # Seconds between them, at scale 1.
    pace: float = 0.0
    most: Callable[[int, float], float] | None = None


def _rests(workers: int, seconds: float) -> float:
    """Once a worker, and again after each pause that the provider asked for."""
    return workers * (1 + seconds // RETRY_AFTER)


def _opens(workers: int, seconds: float) -> float:
    """Until each worker's circuit is open, then a probe after each pause."""
    return workers * FAULTS + seconds // PAUSE


FAULTS_TO_SHOW = (
    Fault("429 with Retry-After", "sim-429-once", most=_rests),
    Fault("lasting 429", "sim-429", requests=20, most=_rests),
    Fault("one 500", "sim-500-once"),
    Fault("503", "sim-503", requests=20, most=_opens),
    Fault("connection reset", "sim-reset", requests=20, most=_opens),
    Fault("silence of 120 s", "sim-silence"),
    Fault("first token after 20 s", "sim-first-token-slow"),
    Fault("cut after 40 of 60 tokens", "sim-cut", breaks=True),
    Fault("stall of 30 s in mid-stream", "sim-stall", breaks=True),
    Fault("broken JSON in a chunk", "sim-badjson", breaks=True),
    Fault("no [DONE]", "sim-nodone"),
    Fault("context length 400", "sim-400-context", reason="on_context_window"),
    Fault("content filter 400", "sim-400-filter", reason="on_content_filter"),
    Fault("fallback that rejects prefill", "sim-cut", fallback="sim-400-prefill", breaks=True, resume=True),
    Fault(
        "flapping for 60 s", "sim-flap", requests=FLAPPING_REQUESTS, pace=FLAPPING_SECONDS / FLAPPING_REQUESTS
    ),
)


@dataclass(slots=True)
class Heard:
    """What one caller got. ``error`` is the code of an honest error; ``wrong`` says what was not honest."""

    stream: bool
    seconds: float = 0.0
    request_id: str = ""
    deployment: str = ""
    whole: bool = False
    error: str = ""
    words: int = 0
    model: str = ""
    usage: dict[str, Any] | None = None
    wrong: str = ""


@dataclass(slots=True)
class Shown:
    """One fault as it was seen."""

    fault: Fault
    heard: list[Heard] = field(default_factory=list)
    seconds: float = 0.0


def run(ground: Ground, scale: float, say: Callable[[str], None]) -> list[Verdict]:
    """Show every fault at once, each to callers of its own, then the books; sixteen verdicts. Raises DrillError."""
    ground.start_provider()
    payer = payers.everything()
    for number, fault in enumerate(FAULTS_TO_SHOW, start=1):
        _offer(ground.provider_url, number, fault, scale)
    ground.start_server()
    ground.start_shipper()
    shown = asyncio.run(_show_all(ground.url, payer, scale))
    arrivals = _arrivals(ground)
    found = []
    for number, each in enumerate(shown, start=1):
        found.append(_verdict(number, each, arrivals, ground.workers, scale))
        say(f"{number} {each.fault.name}: {found[-1].word}")
    found.append(_books(ground, len(found) + 1, [heard for each in shown for heard in each.heard], arrivals))
    say(f"{len(found)} accounting: {found[-1].word}")
    return found


# --- the provider and its callers ----------------------------------------------------------------


def _offer(url: str, number: int, fault: Fault, scale: float) -> None:
    """The group ``fault-N`` over the fault's primary and its fallback, at providers with scaled timeouts."""
    name = f"fault-{number}"
    places = []
    for priority, (role, model) in enumerate(
        (("primary", fault.primary), ("fallback", fault.fallback)), start=1
    ):
        provider = create_provider(
            acting_user=None,
            name=f"{name}-{role}",
            kind="simulator",
            base_url=url,
            first_token_timeout=60 * scale,
            idle_timeout=30 * scale,
            total_timeout=600 * scale,
        )
        deployment = create_deployment(
            acting_user=None, name=f"{name}-{role}", provider=provider, model=model
        )
        set_price(acting_user=None, deployment=deployment, **COST)
        places.append(Place(deployment, priority=priority))
    if fault.reason:
        other = create_model_group(acting_user=None, name=f"{name}-other", places=[places.pop()])
        set_price(acting_user=None, model_group=other, **PRICE)
    group = create_model_group(
        acting_user=None,
        name=name,
        places=places,
        resume=fault.resume,
        fallbacks={fault.reason: [f"{name}-other"]} if fault.reason else {},
    )
    set_price(acting_user=None, model_group=group, **PRICE)


async def _show_all(url: str, payer: Payer, scale: float) -> list[Shown]:
    return await asyncio.gather(
        *(
            _show(url, payer, f"fault-{number}", fault, scale)
            for number, fault in enumerate(FAULTS_TO_SHOW, start=1)
        )
    )


async def _show(url: str, payer: Payer, name: str, fault: Fault, scale: float) -> Shown:
    shown = Shown(fault)
    began = time.monotonic()
    for turn in range(fault.requests):
        due = began + turn * fault.pace * scale
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        shown.heard.append(await _ask(url, payer, name, fault, turn, scale))
    shown.seconds = time.monotonic() - began
    return shown


def _patience(scale: float) -> float:
    """Seconds that a caller waits for the whole of its answer."""
    return DEADLINE * scale + LEEWAY * max(0.0, 1 - scale)


async def _ask(url: str, payer: Payer, name: str, fault: Fault, turn: int, scale: float) -> Heard:
    heard = Heard(stream=turn % 2 == 0)
    waits = f"silence_s={SILENCE * scale:g} first_s={LATE * scale:g} stall_s={STALL * scale:g}"
    if "429" in fault.primary:
        waits += f" retry_after={RETRY_AFTER}"
    body: dict[str, Any] = {
        "model": name,
        "messages": [{"role": "user", "content": f"words={WORDS} {waits}"}],
        "user": f"{name}-{turn}",
    }
    if heard.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    began = time.monotonic()
    try:
        # A client of its own is a connection of its own, so that every worker gets some.
        async with asyncio.timeout(_patience(scale)), callers.new_client() as client:
            request = client.post(f"{url}/v1/chat/completions").bearer_auth(payer.secrets[0])
            # As OpenAI's SDKs tell how long they wait.
            request = request.header("x-stainless-timeout", f"{DEADLINE * scale:g}")
            response = await request.body_json(body).build().send()
            answer = bytes(await response.bytes())
    except TimeoutError:
        heard.wrong = "nothing whole within the deadline"
    except (PyreqwestError, OSError) as error:
        heard.wrong = f"the connection failed: {type(error).__name__}"
    else:
        heard.request_id = response.headers.get("x-request-id") or ""
        heard.deployment = response.headers.get("x-weir-deployment") or ""
        _read(heard, response.status, answer)
    heard.seconds = time.monotonic() - began
    return heard


def _read(heard: Heard, status: int, answer: bytes) -> None:
    """Judge one answer as a careful client would."""
    try:
        if status != 200:
            error = json.loads(answer)["error"]
            heard.error = str(error["code"] or error["type"])
            heard.wrong = "" if error["message"] else "an error without a message"
        elif heard.stream:
            _read_stream(heard, answer)
        else:
            whole = json.loads(answer)
            choice = whole["choices"][0]
            _take(heard, choice["message"]["content"], choice["finish_reason"], whole)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        heard.wrong = f"an answer that nobody can read: {type(error).__name__}"


def _read_stream(heard: Heard, answer: bytes) -> None:
    text, finish, done = "", None, False
    last: dict[str, Any] = {}
    for line in answer.split(b"\n"):
        if line == b"data: [DONE]":
            done = True
        elif line.startswith(b"data: "):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                heard.error = str(chunk["error"]["code"] or chunk["error"]["type"])
                continue
            last = {**last, **{name: value for name, value in chunk.items() if value}}
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
    if heard.error:
        heard.words = len(text.split())
        heard.wrong = "an error followed by [DONE]" if done else ""
    elif not done:
        heard.wrong = "a stream that just ends"
    else:
        _take(heard, text, finish, last)


def _take(heard: Heard, text: str, finish: str | None, last: dict[str, Any]) -> None:
    heard.words, heard.model, heard.usage = len(text.split()), last["model"], last["usage"]
    heard.whole = heard.words == WORDS and finish == "stop"
    if not heard.whole:
        heard.wrong = f"{heard.words} of {WORDS} words look complete ({finish})"
    elif heard.usage["completion_tokens"] != WORDS:
        heard.wrong = f"usage says {heard.usage['completion_tokens']} tokens of {WORDS}"


# --- verdicts --------------------------------------------------------------------------------------


def _arrivals(ground: Ground) -> Counter[tuple[str, str]]:
    """How often the provider was asked, by (request id, model)."""
    found: Counter[tuple[str, str]] = Counter()
    for line in ground.provider_log.read_bytes().split(b"\n"):
        if line and (entry := json.loads(line))["event"] == "arrive":
            found[entry["request_id"], entry["model"]] += 1
    return found


def _verdict(
    number: int, shown: Shown, arrivals: Counter[tuple[str, str]], workers: int, scale: float
) -> Verdict:
    fault, heard = shown.fault, shown.heard
    wrong = [f"request {turn}: {each.wrong}" for turn, each in enumerate(heard) if each.wrong]
    for turn, each in enumerate(heard):
        may_fail = fault.breaks and each.stream
        if each.error and not may_fail:
            wrong.append(f"request {turn}: {each.error}, although the fallback was there")
        elif each.whole and may_fail:
            wrong.append(f"request {turn}: a broken stream was made whole, which this group does not allow")
        model = fault.primary if each.deployment == f"fault-{number}-primary" else fault.fallback
        if each.whole and each.model != model:
            wrong.append(f"request {turn}: says {each.model}, but {model} answered")
    asked = [arrivals[each.request_id, fault.primary] for each in heard]
    most = len(heard) if fault.most is None else fault.most(workers, shown.seconds)
    if max(asked) > 1:
        wrong.append(f"the primary was asked {max(asked)} times for one request")
    if sum(asked) > most:
        wrong.append(
            f"the primary was asked {sum(asked)} times in {shown.seconds:.1f} s, at most {most:.0f} are fair"
        )
    ends = Counter(
        f"error {each.error}" if each.error else f"whole from {each.deployment.rsplit('-', 1)[-1]}"
        for each in heard
        if not each.wrong
    )
    return Verdict(
        {
            "fault": f"{number} {fault.name}",
            "requests": str(len(heard)),
            "at primary": str(sum(asked)),
            "slowest": f"{max(each.seconds for each in heard):.1f} of {_patience(scale):.1f} s",
            "callers got": ", ".join(f"{count} {end}" for end, count in sorted(ends.items())),
        },
        wrong,
    )


def _books(ground: Ground, number: int, heard: list[Heard], arrivals: Counter[tuple[str, str]]) -> Verdict:
    """Everything that was asked has one event with its attempts and the right charge, and nothing stays."""
    connection.close()
    asked = Counter({request: 0 for request, _ in arrivals})
    for (request, _), count in arrivals.items():
        asked[request] += count
    wait_until(lambda: asked.keys() <= books.recorded().keys(), SHIP_SECONDS)
    events = books.recorded()
    if not events:
        raise DrillError(f"Nothing was shipped. {ground.last_words('shipper')}")
    wrong = []
    if missing := asked.keys() - events.keys():
        wrong.append(f"{len(missing)} requests have no event: {sorted(missing)[:3]}")
    if twice := [request for request, count in events.items() if count > 1]:
        wrong.append(f"{len(twice)} requests have several events: {twice[:3]}")
    wrong += _mischarged(heard, asked)
    wrong += books.miscounted(ground.provider_log)[:3]
    wrong += books.differences()
    wrong += ground.defects()
    if not wait_until(lambda: books.reserved() == 0, SHIP_SECONDS):
        wrong.append(f"{books.reserved()} are still reserved")
    sums = books.sums()
    if sums.letters:
        wrong.append(f"{sums.letters} dead letters")
    return Verdict(
        {
            "fault": f"{number} accounting",
            "requests": str(len(heard)),
            "at primary": str(sum(asked.values())),
            "slowest": "",
            "callers got": f"{sums.events} events, {sums.charge:f} charged",
        },
        wrong,
    )


def _mischarged(heard: list[Heard], asked: Counter[str]) -> list[str]:
    """Requests whose event has other attempts than the provider saw, or another charge than the caller works out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id, jsonb_array_length(attempts), input_tokens, output_tokens, charge, cost, end_reason"
            " FROM billing_usageevent"
        )
        events = {row[0]: row[1:] for row in cursor.fetchall()}
    found = []
    for each in heard:
        if each.request_id not in events:
            if each.request_id:
                found.append(f"{each.request_id} has no event")
            continue
        attempts, given, taken, charge, cost, reason = events[each.request_id]
        if attempts != asked[each.request_id]:
            found.append(f"{each.request_id}: {attempts} attempts, the provider saw {asked[each.request_id]}")
        if each.usage is not None:
            given, taken = each.usage["prompt_tokens"], each.usage["completion_tokens"]
        # Estimated by events and their bytes: a long word may count as two.
        if reason == "cut" and not each.words <= taken <= 1.25 * each.words:
            found.append(f"{each.request_id}: {taken} tokens, the caller got {each.words} words")
        for what, amount, rates in (("charge", charge, PRICE), ("cost", cost, COST)):
            fair = (
                (given * rates["input"] + taken * rates["output"]) / MILLION
                if reason in _CHARGED
                else Decimal(0)
            )
            if amount != fair:
                found.append(f"{each.request_id} ({reason}): {what} {amount:f}, but {fair:f} is fair")
    return found[:6]


_CHARGED = frozenset({"completed", "cut"})
