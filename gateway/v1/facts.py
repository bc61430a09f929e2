"""What a request asks for, read once from its body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from billing.token_usage import NO_QUANTITIES, SEARCHES, TokenUsage
from gateway.v1.errors import InvalidRequest
from gateway.v1.forms import Form
from tenants.keys import concealed

# A token is seldom shorter than this many UTF-8 bytes of JSON in any language we have measured.
BYTES_PER_TOKEN = 4
# Tokens of an image or audio part, which are not in proportion to the bytes that carry it: about, and for what
# the request may cost. OpenAI's guide "Images and vision": gpt-4o has 85 + 170 for each of up to 8 tiles, the
# gpt-4.1 family up to 1,536 patches times 1, 1.62 (mini) or 2.46 (nano). gpt-4o-mini's own count is higher.
TOKENS_PER_PART, MOST_PER_PART = 2_000, 4_096
# What files and long sounds have at most beyond that, by bytes of their base64: a page of a file may be packed to
# as few bytes as it has tokens; a second of sound is 32 tokens (https://ai.google.dev/gemini-api/docs/audio) and
# at least 1,000 bytes. A file that is only named by its address may be of any length.
BYTES_PER_FILE_TOKEN, BYTES_PER_SOUND_TOKEN, MOST_BY_ADDRESS = 1, 31, 1_000_000
# Where neither the client nor the deployment bounds the answer.
DEFAULT_OUTPUT_TOKENS = 4_096
MAX_CHOICES = 128
MAX_END_USER = 256
MOST_TAGS = 8
NO_TAGS: Mapping[str, str] = {}


@dataclass(slots=True)
class Facts:
    """One request, as routing and admission see it.

    ``endpoint`` is what a provider is asked, ``body`` with what: the client's own body, decoded, or
    what ``gateway.v1.translation`` made of it.
    """

    endpoint: str
    body: dict[str, Any]
    model: str
    stream: bool = False
    # Whether the client asked for a usage chunk.
    wants_usage: bool = False
    # A rough count, for estimates and for narrowing the candidates.
    input_tokens: int = 0
    # No tokenizer yields more than one token a byte, so the input can never be longer than this.
    input_bound: int = 0
    # The client's own bound on the answer, over all choices; None: it set none.
    output_bound: int | None = None
    choices: int = 1
    needs: frozenset[str] = frozenset()
    end_user: str = ""
    base64: bool = False
    # Of a translated request: the client's own body, and the names of parameters that had no place.
    asked: dict[str, Any] | None = None
    dropped: tuple[str, ...] = ()
    # What a provider that speaks the client's own API is asked; None: it must be translated.
    native: dict[str, Any] | None = None
    # Whether the answer is kept for its team.
    kept: bool = False
    # Whether a provider that is not known to stop by itself is told the bound that was reserved.
    tells_bound: bool = False
    # The deployment that was asked for by name, as group/deployment; ``model`` is then the group alone.
    pin: str = ""
    # From the header X-Session-Id.
    session: str = ""
    # From the headers X-Weir-Max-Cost (US dollars) and X-Weir-Region; None: not sent.
    max_cost: Decimal | None = None
    regions: frozenset[str] | None = None
    # From the header X-Weir-Tags.
    tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    # Classes of `billing.pricing.CLASSES` that it uses besides its endpoint's own; each must have a price.
    classes: frozenset[str] = frozenset()
    # The most it can use of what is counted one by one, by class of `TokenUsage.quantities`.
    units: Mapping[str, Decimal] = field(default_factory=lambda: NO_QUANTITIES)
    # What it is charged for where the provider reports nothing; None: its tokens, by what was seen.
    counted: TokenUsage | None = None
    # Whether a good answer is bytes that pass as they come.
    binary: bool = False
    # The parts of a request that is a form; ``body`` then has its fields.
    form: Form | None = None
    # Tokens that files and sounds in it can have at most, beside ``input_bound``: what a context window holds
    # of them.
    files_bound: int = 0

    def body_for(self, max_output_tokens: int | None) -> dict[str, Any]:
        """The body for a deployment whose answers have at most ``max_output_tokens``; None: unknown."""
        if self.tells_bound and max_output_tokens is None:
            return {**self.body, "max_tokens": DEFAULT_OUTPUT_TOKENS}
        return self.body


def decode(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object, or InvalidRequest in the words of the field."""
    if not raw:
        raise InvalidRequest("The request has no body. Send a JSON object.", code="missing_body")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: {_where(error)}.", code="invalid_json"
        ) from None
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_type")
    return body


def chat_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a ``/v1/chat/completions`` body; raises InvalidRequest naming the parameter."""
    return chat_facts_of(decode(raw), len(raw), end_user_header)


def chat_facts_of(
    body: dict[str, Any],
    size: int,
    end_user_header: str,
    *,
    asked: dict[str, Any] | None = None,
    dropped: tuple[str, ...] = (),
) -> Facts:
    """Facts of a chat body of ``size`` bytes; ``asked`` is what the client sent where that is not it."""
    model = model_of(body)
    messages = body.get("messages")
    if messages is None:
        raise InvalidRequest(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        )
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of messages", messages)
    if not messages:
        raise InvalidRequest(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    parts = 0
    carried = files = 0
    seen = heard = False
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise wrong_type(f"messages[{index}]", "an object with a role", message)
        content = message.get("content")
        if content.__class__ is list:
            for part in content:
                if not isinstance(part, dict):
                    raise wrong_type(f"messages[{index}].content", "a string or an array of parts", part)
                if part.get("type") in _HEAVY_PARTS:
                    parts += 1
                    held = len(orjson.dumps(part))
                    if part["type"] == "input_audio":
                        heard = True
                    else:
                        seen = True
                    carried += held
                    files += _most_of_file(part, held)
        elif content is not None and content.__class__ is not str:
            raise wrong_type(f"messages[{index}].content", "a string or an array of parts", content)
    stream = boolean(body, "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong_type("stream_options", "an object", options)
    if options and not stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    choices = whole(body, "n", 1, MAX_CHOICES) or 1
    bound = whole(body, "max_completion_tokens", 1) or whole(body, "max_tokens", 1)
    text = max(0, size - carried)
    classes = _classes(body, heard=heard)
    return Facts(
        "chat.completions",
        body,
        model,
        stream,
        # A translated answer tells its usage in its own way.
        asked is not None or bool(options and options.get("include_usage")),
        text // BYTES_PER_TOKEN + 1 + parts * TOKENS_PER_PART,
        text + parts * MOST_PER_PART,
        None if bound is None else bound * choices,
        choices,
        _needs(body, classes, seen=seen, stream=stream),
        end_user_of(body, end_user_header),
        asked=asked,
        dropped=dropped,
        classes=classes,
        files_bound=files,
        units=_SEARCHES if "search" in classes else NO_QUANTITIES,
    )


def embedding_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a ``/v1/embeddings`` body; raises InvalidRequest naming the parameter."""
    body = decode(raw)
    model = model_of(body)
    value = body.get("input")
    if value is None:
        raise InvalidRequest(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    if not isinstance(value, str | list):
        raise wrong_type("input", "a string or an array", value)
    if not value:
        raise InvalidRequest("Invalid 'input': it is empty.", param="input", code="empty_input")
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidRequest(
            "Invalid 'encoding_format': expected 'float' or 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
    return Facts(
        "embeddings",
        body,
        model,
        input_tokens=len(raw) // BYTES_PER_TOKEN + 1,
        input_bound=len(raw),
        output_bound=0,
        end_user=end_user_of(body, end_user_header),
        base64=encoding == "base64",
    )


def narrow(facts: Facts, headers: Mapping[bytes, bytes]) -> None:
    """Take over what headers say about where the request may go and what it is for; raises InvalidRequest
    naming the header."""
    ceiling, regions = headers.get(b"x-weir-max-cost"), headers.get(b"x-weir-region")
    session = headers.get(b"x-session-id")
    if session is not None:
        facts.session = session.decode("latin-1")
    if ceiling is not None:
        text = ceiling.decode("latin-1").strip()
        if not _DOLLARS.fullmatch(text):
            raise InvalidRequest(
                "Invalid 'X-Weir-Max-Cost': expected US dollars as a decimal, such as 0.05.",
                param="X-Weir-Max-Cost",
                code="invalid_value",
            )
        facts.max_cost = Decimal(text)
    if regions is not None:
        names = frozenset(name.strip() for name in regions.decode("latin-1").split(","))
        if not all(_REGION.fullmatch(name) for name in names):
            raise InvalidRequest(
                "Invalid 'X-Weir-Region': expected a region, or several with commas between them.",
                param="X-Weir-Region",
                code="invalid_value",
            )
        facts.regions = names
    tags = headers.get(b"x-weir-tags")
    if tags is not None:
        facts.tags = _tags(tags.decode("utf-8", "replace"))


def _tags(header: str) -> dict[str, str]:
    """``feature=search, env=prod`` by name. A value that looks like a key is not kept."""
    found: dict[str, str] = {}
    for each in header.split(","):
        name, _, value = (part.strip() for part in each.partition("="))
        if not _TAG.fullmatch(name) or not _TAG_VALUE.fullmatch(value) or name in found:
            found.clear()
            break
        found[name] = concealed(value)
    if not 0 < len(found) <= MOST_TAGS:
        raise InvalidRequest(
            f"Invalid 'X-Weir-Tags': expected up to {MOST_TAGS} tags with commas between them, each once, "
            "such as feature=search, env=prod; names of a to z, 0 to 9, hyphen and underscore, values of up "
            "to 100 characters.",
            param="X-Weir-Tags",
            code="invalid_value",
        )
    return found


_TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_TAG_VALUE = re.compile(r"[^\x00-\x1f\x7f,]{1,100}")
_DOLLARS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?", re.ASCII)
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def _most_of_file(part: dict[str, Any], held: int) -> int:
    """Tokens at most of a part of ``held`` bytes, beyond ``MOST_PER_PART``, if it is a file or sound."""
    if part["type"] == "input_audio":
        return held // BYTES_PER_SOUND_TOKEN
    if part["type"] != "file":
        return 0
    file = part.get("file")
    data = file.get("file_data") if isinstance(file, dict) else None
    named = isinstance(data, str) and data.startswith(("https://", "http://"))
    return MOST_BY_ADDRESS if named else held // BYTES_PER_FILE_TOKEN


_HEAVY_PARTS = frozenset({"image_url", "input_audio", "file"})


def _where(error: orjson.JSONDecodeError) -> str:
    # The decoder's message names a position and never quotes the text.
    return f"{error.msg} (line {error.lineno}, column {error.colno})"


def model_of(body: dict[str, Any]) -> str:
    """The model that a body asks for; raises InvalidRequest."""
    model = body.get("model")
    if model is None or model == "":
        raise InvalidRequest(
            "you must provide a model parameter", param="model", code="missing_required_parameter"
        )
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    return model


def required(body: dict[str, Any], name: str) -> Any:
    """A member that must be there and not be empty; raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        raise InvalidRequest(
            f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    if value in ("", [], {}):
        raise InvalidRequest(f"Invalid '{name}': it is empty.", param=name, code="empty_input")
    return value


def text(body: dict[str, Any], name: str) -> str:
    """A text that must be there and not be empty; raises InvalidRequest."""
    value = required(body, name)
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return value


def wrong_type(param: str, expected: str, value: object) -> InvalidRequest:
    """The error for a value of a wrong type; it names the type and not the value."""
    got = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
    return InvalidRequest(
        f"Invalid type for '{param}': expected {expected}, but got {got} instead.",
        param=param,
        code="invalid_type",
    )


def boolean(body: dict[str, Any], name: str) -> bool:
    """A member that is true or false; missing is false. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return False
    if value.__class__ is not bool:
        raise wrong_type(name, "a boolean", value)
    return bool(value)


def whole(body: dict[str, Any], name: str, least: int, most: int = 2**31) -> int | None:
    """A whole number of the body within bounds, or None; raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if value.__class__ is not int:
        raise wrong_type(name, "an integer", value)
    if value < least:
        raise InvalidRequest(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if value > most:
        raise InvalidRequest(
            f"Invalid '{name}': integer above maximum value. Expected a value <= {most}, but got {value} instead.",
            param=name,
            code="integer_above_max_value",
        )
    return int(value)


def _needs(body: dict[str, Any], classes: frozenset[str], *, seen: bool, stream: bool) -> frozenset[str]:
    """Of `routing.links.CAPABILITIES`, what a chat request needs."""
    found = set()
    if body.get("tools"):
        found.add("tools")
    if seen:
        found.add("vision")
    if classes and not classes.isdisjoint(_AUDIO):
        found.add("audio")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        found.add("json_schema")
    if not found:
        return _STREAMING if stream else _NOTHING
    if stream:
        found.add("streaming")
    return frozenset(found)


_NOTHING: frozenset[str] = frozenset()
_STREAMING = frozenset({"streaming"})
_AUDIO = frozenset({"audio_input", "audio_output"})
# How many searches a request that may search is taken to make at most.
_SEARCHES: Mapping[str, Decimal] = {SEARCHES: Decimal(10)}


def _classes(body: dict[str, Any], *, heard: bool) -> frozenset[str]:
    """What a chat request uses besides tokens of text and images."""
    found = set()
    if heard:
        found.add("audio_input")
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        found.add("audio_output")
    tools = body.get("tools")
    if body.get("web_search_options") is not None or (
        isinstance(tools, list) and any(_searches(tool) for tool in tools)
    ):
        found.add("search")
    return frozenset(found) if found else _NOTHING


def _searches(tool: object) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and kind.startswith("web_search")


def end_user_of(body: dict[str, Any], header: str) -> str:
    """The customer's own user: ``safety_identifier``, ``user``, or the X-End-User header."""
    for value in (body.get("safety_identifier"), body.get("user"), header):
        if isinstance(value, str) and value:
            return value[:MAX_END_USER].replace("\x00", "")
    return ""
