"""Chat streams in the shapes that providers send, and what a client must make of each.

The shapes are those of real recordings; ids and texts are shortened.
"""

from __future__ import annotations

import json

from tests.dialects.anthropic_corpus import ANTHROPIC_REPLAYS
from tests.dialects.gemini_corpus import GEMINI_REPLAYS
from tests.dialects.shapes import WEATHER, Replay, chunk, last, lines, piece, usage

REPLAYS = [
    Replay(
        "openai-text",
        "vllm",
        lines(
            chunk({"role": "assistant", "content": "", "refusal": None}, usage=None, obfuscation="Qup1"),
            chunk({"content": "Hel"}, usage=None, obfuscation="zap0"),
            chunk({"content": "lö 🌍"}, usage=None),
            chunk({}, "stop", usage=None),
            last(16, 3, prompt_tokens_details={"cached_tokens": 4}),
        ),
        text="Hellö 🌍",
        usage=(16, 3),
    ),
    Replay(
        "openai-tools",
        "generic",
        lines(
            chunk(
                {
                    "role": "assistant",
                    "content": None,
                    **piece("", index=0, id="call_a", type="function", name="weather"),
                }
            ),
            chunk(piece('{"loc', index=0)),
            chunk(piece('ation": "Zürich"}', index=0)),
            chunk(piece("", index=1, id="call_b", type="function", name="time")),
            chunk(piece("{}", index=1)),
            chunk({}, "tool_calls"),
        ),
        tools=(("call_a", "weather", WEATHER), ("call_b", "time", "{}")),
        finish="tool_calls",
    ),
    Replay(
        "azure-filter-annotations",
        "azure",
        lines(
            {
                "choices": [],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
            },
            chunk({"content": "", "refusal": None, "role": "assistant"}),
            {
                "choices": [
                    {
                        "content_filter_offsets": {"check_offset": 140},
                        "content_filter_results": {"custom_blocklists": [{"filtered": True, "id": "x"}]},
                        "finish_reason": None,
                        "index": 0,
                    }
                ],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
            },
            chunk({"content": "Hi"}),
            chunk({}, "stop"),
            last(15, 78),
        ),
        text="Hi",
        usage=(15, 78),
    ),
    Replay(
        "azure-block-without-usage",
        "azure",
        lines(
            chunk({"role": "assistant", "content": ""}), chunk({"content": "I"}), chunk({}, "content_filter")
        ),
        text="I",
        finish="content_filter",
    ),
    Replay(
        "azure-deepseek-null-members",
        "azure",
        lines(
            chunk({"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None}),
            chunk({"role": None, "content": "Yes", "reasoning_content": None, "tool_calls": None}),
            chunk({"role": None, "content": None, "reasoning_content": None, "tool_calls": None}, "stop"),
            last(9, 2, prompt_tokens_details=None, reasoning_tokens=0),
        ),
        text="Yes",
        usage=(9, 2),
    ),
    Replay(
        "deepseek-thinking-and-tools",
        "deepseek",
        lines(
            b": keep-alive\n\n",
            chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
            chunk({"reasoning_content": "Let me "}),
            b": keep-alive\n\n",
            chunk({"reasoning_content": "look."}),
            chunk(piece("", index=0, id="call_00_x", type="function", name="weather")),
            chunk(piece('{"location": "Zü', index=0)),
            chunk(piece('rich"}', index=0)),
            chunk(
                {"content": "", "reasoning_content": None},
                "tool_calls",
                usage=usage(
                    339,
                    83,
                    completion_tokens_details={"reasoning_tokens": 39},
                    prompt_cache_hit_tokens=320,
                    prompt_cache_miss_tokens=19,
                ),
            ),
        ),
        reasoning="Let me look.",
        tools=(("call_00_x", "weather", WEATHER),),
        finish="tool_calls",
        usage=(339, 83),
    ),
    Replay(
        "deepseek-out-of-resources",
        "deepseek",
        lines(chunk({"role": "assistant", "content": "Ha"}), chunk({}, "insufficient_system_resource")),
        text="Ha",
        error="insufficient_system_resource",
    ),
    Replay(
        "qwen-shuffled-keys-and-empty-ids",
        "qwen",
        lines(
            b'data: {"choices":[{"delta":{"content":null,"role":"assistant"},"index":0,"logprobs":null,'
            b'"finish_reason":null}],"object":"chat.completion.chunk","usage":null,"created":1,"model":"q","id":"c1"}\n\n',
            chunk(piece("", index=0, id="call_eee", type="function", name="weather")),
            b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\\"location\\": "},"index":0,"id":"",'
            b'"type":"function"}]},"index":0}],"object":"chat.completion.chunk","usage":null,"id":"c1"}\n\n',
            chunk(piece('"Zürich"}', index=0, id="", type="function", name="")),
            chunk({}, "tool_calls"),
            last(5, 6),
        ),
        tools=(("call_eee", "weather", WEATHER),),
        finish="tool_calls",
        usage=(5, 6),
    ),
    Replay(
        "qwen-inspection-in-mid-stream",
        "qwen",
        lines(
            chunk({"role": "assistant", "content": "So "}),
            {
                "error": {
                    "message": "Output data may contain inappropriate content.",
                    "type": "data_inspection_failed",
                    "code": "data_inspection_failed",
                }
            },
            done=False,
        ),
        text="So ",
        error="inappropriate",
    ),
    Replay(
        "kimi-usage-in-the-choice",
        "moonshot",
        lines(
            chunk({"role": "assistant", "content": "One"}),
            {
                "id": "c1",
                "created": 1741252964,
                "model": "moonshot-v1-8k",
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "finish_reason": "stop",
                        "usage": usage(39, 211, cached_tokens=10),
                    }
                ],
            },
        ),
        text="One",
        usage=(39, 211),
    ),
    Replay(
        "glm-without-finish-key-role-everywhere",
        "zhipu",
        lines(
            {
                "id": "20260701",
                "created": 1782862782,
                "model": "glm",
                "choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "\n1"}}],
            },
            {"id": "20260701", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "2"}}]},
            {
                "id": "20260701",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "delta": {"role": "assistant", "content": ""}}
                ],
                "usage": usage(13, 564),
            },
        ),
        text="2",
        reasoning="\n1",
        usage=(13, 564),
    ),
    Replay(
        "glm-sensitive",
        "zhipu",
        lines(chunk({"role": "assistant", "content": "x"}), chunk({}, "sensitive")),
        text="x",
        finish="content_filter",
    ),
    Replay(
        "glm-network-error",
        "zhipu",
        lines(chunk({"role": "assistant", "content": "x"}), chunk({}, "network_error")),
        text="x",
        error="network_error",
    ),
    Replay(
        "minimax-usage-after-finish",
        "minimax",
        lines(
            chunk(
                {"name": "MiniMax AI", "audio_content": "", "content": "<think>\nHm", "role": "assistant"},
                input_sensitive=False,
                usage=None,
            ),
            chunk(
                {
                    "name": "MiniMax AI",
                    "audio_content": "",
                    "content": "",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "function": {"arguments": '{"a": ', "name": "Bash"},
                            "type": "function",
                            "index": 0,
                        }
                    ],
                },
                usage={"total_tokens": 0, "total_characters": 0},
            ),
            chunk(piece("1}", index=0)),
            {"id": "c1", "choices": [{"finish_reason": "tool_calls", "index": 0, "delta": {}}]},
            {"id": "c1", "choices": [{"index": 0, "delta": {}}], "usage": usage(14059, 75)},
            done=False,
        ),
        reasoning="\nHm",
        tools=(("call_1", "Bash", '{"a": 1}'),),
        finish="tool_calls",
        usage=(14059, 75),
    ),
    Replay(
        "minimax-think-tags-in-pieces",
        "minimax",
        lines(
            chunk({"role": "assistant", "content": "<th"}),
            chunk({"content": "ink>Hm, a < b"}),
            chunk({"content": ".</thi"}),
            chunk({"content": "nk>\n\n"}),
            chunk({"content": "\nYes: <think> is"}),
            chunk({"content": " a tag</think>"}, "stop"),
        ),
        text="Yes: <think> is a tag</think>",
        reasoning="Hm, a < b.",
    ),
    Replay(
        "together-think-tag-never-closed",
        "together",
        lines(
            chunk({"role": "assistant", "content": "<think>"}),
            chunk({"content": "Hm</th"}),
            chunk({}, "length"),
        ),
        reasoning="Hm</th",
        finish="length",
    ),
    Replay(
        "vllm-closing-think-tag-alone-is-text",
        "vllm",
        lines(chunk({"role": "assistant", "content": "Hm</think>"}), chunk({"content": "Yes"}, "stop")),
        text="Hm</think>Yes",
    ),
    Replay(
        "vllm-what-begins-like-a-tag",
        "vllm",
        lines(chunk({"role": "assistant", "content": " <thin"}), chunk({}, "stop")),
        text=" <thin",
    ),
    Replay(
        "deepseek-tool-markup-as-text",
        "deepseek",
        lines(
            chunk({"role": "assistant", "content": "<\uff5c\uff5cDSML\uff5c\uff5c"}),
            chunk({"content": "tool_calls>"}),
            chunk({}, "stop", usage=usage(9, 4)),
        ),
        text="<\uff5c\uff5cDSML\uff5c\uff5ctool_calls>",
        usage=(9, 4),
    ),
    Replay(
        "azure-blocked-after-the-end",
        "azure",
        lines(
            chunk({"role": "assistant", "content": "Hi"}),
            chunk({}, "stop"),
            {
                "choices": [
                    {
                        "content_filter_offsets": {"check_offset": 2},
                        "content_filter_results": {"custom_blocklists": [{"filtered": True, "id": "x"}]},
                        "finish_reason": None,
                        "index": 0,
                    }
                ],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
            },
        ),
        text="Hi",
    ),
    Replay(
        "openrouter-missing-arguments",
        "openrouter",
        lines(
            chunk({"role": "assistant", **piece(index=0, id="toolu_vrtx_1", type="function", name="find")}),
            chunk({}, "tool_calls"),
        ),
        tools=(("toolu_vrtx_1", "find", "{}"),),
        finish="tool_calls",
    ),
    Replay(
        "minimax-split-reasoning-and-whole-message-at-the-end",
        "minimax",
        lines(
            {
                "id": "c1",
                "choices": [
                    {
                        "index": 0,
                        "delta": {
                            "role": "assistant",
                            "reasoning_details": [
                                {"type": "reasoning.text", "id": "r1", "index": 0, "text": "Hm"}
                            ],
                        },
                    }
                ],
            },
            chunk({"content": "Yes"}),
            {
                "id": "c1",
                "object": "chat.completion",
                "choices": [
                    {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Yes"}}
                ],
                "base_resp": {"status_code": 0, "status_msg": ""},
                "usage": {"total_characters": 0, "prompt_tokens": 3, "completion_tokens": 2},
            },
        ),
        text="Yes",
        reasoning="Hm",
        usage=(3, 2),
    ),
    Replay(
        "minimax-no-money-inside",
        "minimax",
        lines(
            {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None},
            done=False,
        ),
        error="insufficient balance",
    ),
    Replay(
        "mistral-without-index",
        "mistral",
        lines(
            chunk({"role": "assistant", "content": ""}),
            chunk(
                {
                    "content": None,
                    "tool_calls": [
                        {"id": "gSIMJiOkT", "function": {"name": "weather", "arguments": WEATHER}},
                        {"id": "aSIMJiOkT", "function": {"name": "weather", "arguments": "{}"}},
                    ],
                },
                "tool_calls",
                usage=usage(124, 22),
            ),
        ),
        tools=(("gSIMJiOkT", "weather", WEATHER), ("aSIMJiOkT", "weather", "{}")),
        finish="tool_calls",
        usage=(124, 22),
    ),
    Replay(
        "mistral-thinking-array-then-string",
        "mistral",
        lines(
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Okay"}]}]}),
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": ", so"}]}]}),
            chunk({"content": [{"type": "text", "text": "A"}]}),
            chunk({"content": " crossing"}),
            chunk({"content": ""}, "model_length", usage=usage(7, 8)),
        ),
        text="A crossing",
        reasoning="Okay, so",
        finish="length",
        usage=(7, 8),
    ),
    Replay(
        "mistral-glm-empty-names-index-in-delta",
        "mistral",
        lines(
            chunk({"role": "assistant", "content": ""}),
            chunk({**piece('{"loca', id="abcdefghi", name="weather", index=0), "index": 0, "content": ""}),
            chunk({**piece('tion": "Zürich"}', id="", name="", index=0), "index": 0, "content": ""}),
            chunk({"content": ""}, "tool_calls"),
        ),
        tools=(("abcdefghi", "weather", WEATHER),),
        finish="tool_calls",
    ),
    Replay(
        "groq-own-member-and-channel",
        "groq",
        lines(
            chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_01kh", "seed": 8}),
            chunk({"reasoning": "We ", "channel": "analysis"}),
            chunk({"reasoning": "think", "channel": "analysis"}),
            chunk({"content": "Yes"}),
            chunk({}, "stop", x_groq={"id": "req_01kh", "usage": usage(17, 1107)}),
        ),
        text="Yes",
        reasoning="We think",
        usage=(17, 1107),
    ),
    Replay(
        "groq-usage-twice",
        "groq",
        lines(
            chunk({"role": "assistant", "content": "Yes"}),
            chunk({}, "stop", x_groq={"usage": usage(17, 5)}, usage=usage(17, 5, queue_time=0.17)),
        ),
        text="Yes",
        usage=(17, 5),
    ),
    Replay(
        "groq-error-event-without-done",
        "groq",
        lines(
            chunk({"role": "assistant", "content": ""}),
            b'event: error\ndata: {"error":{"message":"Tool choice is required, but model did not call a tool",'
            b'"type":"invalid_request_error","code":"tool_use_failed","failed_generation":"","status_code":400}}\n\n',
            done=False,
        ),
        error="Tool choice is required",
    ),
    Replay(
        "together-text-and-delta-big-seed",
        "together",
        lines(
            {
                "id": "oV1",
                "object": "chat.completion.chunk",
                "created": 1769546683,
                "choices": [
                    {
                        "index": 0,
                        "text": "A",
                        "logprobs": None,
                        "finish_reason": None,
                        "seed": None,
                        "delta": {"token_id": 128798, "role": "assistant", "content": "A"},
                    }
                ],
                "model": "m",
                "usage": None,
            },
            {
                "id": "oV1",
                "choices": [
                    {
                        "index": 0,
                        "text": "B",
                        "finish_reason": "eos",
                        "seed": 7228414683750928000,
                        "delta": {"token_id": 1, "role": "assistant", "content": "B"},
                    }
                ],
                "usage": usage(10, 955, cached_tokens=0),
            },
        ),
        text="AB",
        usage=(10, 955),
    ),
    Replay(
        "xai-reasoning-beside-the-completion",
        "xai",
        lines(
            {
                "id": "7327",
                "created": 1,
                "model": "grok",
                "choices": [{"index": 0, "delta": {"reasoning_content": "First", "role": "assistant"}}],
            },
            {"id": "7327", "choices": [{"index": 0, "delta": {"content": "Yes", "role": "assistant"}}]},
            {"id": "7327", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {
                "id": "7327",
                "choices": [],
                "usage": {
                    "prompt_tokens": 12,
                    "completion_tokens": 1,
                    "total_tokens": 303,
                    "completion_tokens_details": {"reasoning_tokens": 290},
                    "cost_in_usd_ticks": 12,
                },
            },
        ),
        text="Yes",
        reasoning="First",
        usage=(12, 291),
    ),
    Replay(
        "xai-empty-finish-after-a-tool",
        "xai",
        lines(
            chunk(
                {
                    "role": "assistant",
                    **piece(WEATHER, id="call_55", index=0, type="function", name="weather"),
                }
            ),
            chunk({}, ""),
            last(3, 4),
        ),
        tools=(("call_55", "weather", WEATHER),),
        finish="tool_calls",
        usage=(3, 4),
    ),
    Replay(
        "xai-json-instead-of-a-stream",
        "xai",
        b'{"code":"The service is currently unavailable","error":"Service temporarily unavailable."}',
        error="temporarily",
    ),
    Replay(
        "fireworks-empty-finish-between",
        "fireworks",
        lines(
            chunk({"role": "assistant", "content": "A"}, ""), chunk({"content": "B"}, ""), chunk({}, "stop")
        ),
        text="AB",
    ),
    Replay(
        "openrouter-comments-and-two-finishes",
        "openrouter",
        lines(
            b": OPENROUTER PROCESSING\n\n",
            b": OPENROUTER PROCESSING\n\n",
            chunk({"role": "assistant", "content": "Yes"}, provider="OpenAI"),
            {
                **chunk(),
                "choices": [
                    {
                        "index": 0,
                        "delta": {"content": "", "role": "assistant"},
                        "finish_reason": "stop",
                        "native_finish_reason": "completed",
                    }
                ],
            },
            chunk(
                {"content": "", "role": "assistant"},
                "stop",
                usage=usage(
                    8174, 30, cost=0.0133176, is_byok=False, cost_details={"upstream_inference_cost": 0.01}
                ),
            ),
        ),
        text="Yes",
        usage=(8174, 30),
    ),
    Replay(
        "openrouter-error-chunk",
        "openrouter",
        lines(
            chunk({"role": "assistant", "content": "So"}),
            {
                **chunk({"role": "assistant", "content": ""}),
                "error": {"code": 400, "message": "Token limit reached"},
                "usage": usage(1, 1),
            },
        ),
        text="So",
        usage=(1, 1),
        error="Token limit reached",
    ),
    Replay(
        "openrouter-reasoning-details",
        "openrouter",
        lines(
            chunk(
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning": "Hm",
                    "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "index": 0}],
                }
            ),
            chunk({"content": "Yes", "role": "assistant"}),
            chunk({}, "stop"),
        ),
        text="Yes",
        reasoning="Hm",
    ),
    Replay(
        "openrouter-repeated-id",
        "openrouter",
        lines(
            chunk({"role": "assistant", "content": None, **piece("{}", index=0, id="call_0", name="a")}),
            chunk(piece("{}", index=1, id="call_0", name="b")),
            chunk({}, "tool_calls"),
        ),
        tools=(("call_0", "a", "{}"), ("*", "b", "{}")),
        finish="tool_calls",
    ),
    Replay(
        "openrouter-finish-error",
        "openrouter",
        lines(chunk({"role": "assistant", "content": "So"}), chunk({"content": ""}, "error")),
        text="So",
        error="error",
    ),
    Replay(
        "gemini-compatible-without-index-id-and-created",
        "generic",
        lines(
            {
                "choices": [
                    {
                        "delta": {
                            "role": "assistant",
                            "tool_calls": [
                                {
                                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                                    "function": {"arguments": WEATHER, "name": "weather"},
                                    "id": "call_297140",
                                    "type": "function",
                                }
                            ],
                        },
                        "index": 0,
                    }
                ],
                "model": "gemini",
                "object": "chat.completion.chunk",
            },
            {
                "choices": [{"delta": {"role": "assistant"}, "finish_reason": "tool_calls", "index": 0}],
                "usage": usage(29, 15),
            },
        ),
        tools=(("call_297140", "weather", WEATHER),),
        finish="tool_calls",
        usage=(29, 15),
    ),
    Replay(
        "gemini-relay-two-calls-under-one-index",
        "generic",
        lines(
            chunk(
                {"role": "assistant", **piece('{"a": 1}', index=0, id="call_1", name="f", type="function")}
            ),
            chunk(piece('{"b": 2}', index=0, id="call_2", name="g", type="function")),
            chunk({}, "tool_calls"),
        ),
        tools=(("call_1", "f", '{"a": 1}'), ("call_2", "g", '{"b": 2}')),
        finish="tool_calls",
    ),
    Replay(
        "relay-two-calls-without-arguments-under-one-index",
        "generic",
        lines(
            chunk({"role": "assistant", **piece("", index=0, id="call_1", name="f", type="function")}),
            chunk(piece("", index=0, id="call_2", name="g", type="function")),
            chunk({}, "tool_calls"),
        ),
        tools=(("call_1", "f", "{}"), ("call_2", "g", "{}")),
        finish="tool_calls",
    ),
    Replay(
        "error-event-of-an-unknown-shape",
        "generic",
        lines(
            chunk({"role": "assistant", "content": "A"}),
            b'event: error\ndata: {"reason": "busy"}\n\n',
            done=False,
        ),
        text="A",
        error="busy",
    ),
    Replay(
        "relay-two-argument-objects-behind-each-other",
        "generic",
        lines(
            chunk({"role": "assistant", **piece('{"a": "}{"}', index=0, id="call_1", name="f")}),
            chunk(piece('{"b":', index=0)),
            chunk(piece(" 2}", index=0)),
            chunk({}, "tool_calls"),
        ),
        tools=(("call_1", "f", '{"a": "}{"}'), ("*", "f", '{"b": 2}')),
        finish="tool_calls",
    ),
    Replay(
        "gemini-compatible-error-in-an-array",
        "generic",
        b'[{"error":{"code":400,"message":"Please ensure that function call turn comes first.",'
        b'"status":"INVALID_ARGUMENT"}}]',
        error="Please ensure",
    ),
    Replay(
        "anthropic-compatible-index-one-no-arguments",
        "generic",
        lines(
            chunk({"role": "assistant"}),
            chunk({"content": "Sure."}),
            chunk(piece("", index=1, id="toolu_01", type="function", name="update")),
            chunk(piece("", index=1)),
            chunk({}, "tool_calls"),
        ),
        text="Sure.",
        tools=(("toolu_01", "update", "{}"),),
        finish="tool_calls",
    ),
    Replay(
        "anthropic-compatible-overloaded-in-mid-stream",
        "generic",
        lines(
            chunk({"role": "assistant", "content": "A"}),
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
            done=False,
        ),
        text="A",
        error="Overloaded",
    ),
    Replay(
        "cohere-null-arguments",
        "generic",
        lines(
            chunk({"role": "assistant", **piece("null", index=0, id="c_1", type="function", name="now")}),
            chunk({}, "TOOL_CALL"),
        ),
        tools=(("c_1", "now", "{}"),),
        finish="tool_calls",
    ),
    Replay(
        "arguments-as-an-object-and-absent",
        "openrouter",
        lines(
            chunk({"role": "assistant", **piece({"a": 1}, index=0, id="c_1", name="f")}),
            chunk(piece(index=1, id="c_2", name="g")),
            chunk({}, "tool_calls"),
        ),
        tools=(("c_1", "f", '{"a":1}'), ("c_2", "g", "{}")),
        finish="tool_calls",
    ),
    Replay(
        "the-word-null-inside-arguments",
        "vllm",
        lines(
            chunk({"role": "assistant", **piece('{"a":', index=0, id="c_1", name="f")}),
            chunk(piece("null", index=0)),
            chunk(piece("}", index=0)),
            chunk({}, "tool_calls"),
        ),
        tools=(("c_1", "f", '{"a":null}'),),
        finish="tool_calls",
    ),
    Replay(
        "name-in-pieces-and-calls-interleaved",
        "generic",
        lines(
            chunk({"role": "assistant", **piece(None, index=0, id="c_1", name="get_")}),
            chunk(piece("", index=0, name="time")),
            chunk(piece('{"x"', index=1, id="c_2", name="other")),
            chunk(piece('{"z"', index=0)),
            chunk(piece(": 1}", index=1)),
            chunk(piece(": 2}", index=0)),
            chunk({}, "tool_calls"),
        ),
        tools=(("c_1", "get_time", '{"z": 2}'), ("c_2", "other", '{"x": 1}')),
        finish="tool_calls",
    ),
    Replay(
        "id-and-name-repeated-in-every-piece",
        "generic",
        lines(
            chunk({"role": "assistant", **piece("", index=0, id="c_1", type="function", name="f")}),
            chunk(piece('{"a"', index=0, id="c_1", type="function", name="f")),
            chunk(piece(": 1}", index=0, id="c_1", type="function", name="f")),
            chunk({}, "tool_calls"),
        ),
        tools=(("c_1", "f", '{"a": 1}'),),
        finish="tool_calls",
    ),
    Replay(
        "calls-without-any-id",
        "ollama",
        lines(
            chunk({"role": "assistant", "content": "", **piece("{}", name="a")}),
            chunk(piece('{"b": 1}', name="b")),
            chunk({}, "tool_calls"),
        ),
        tools=(("*", "a", "{}"), ("*", "b", '{"b": 1}')),
        finish="tool_calls",
    ),
    Replay(
        "vllm-named-tool-stops",
        "vllm",
        lines(
            chunk({"role": "assistant", "content": ""}, prompt_token_ids=None),
            chunk({"reasoning": "Hm"}),
            chunk(piece("{}", index=0, id="chatcmpl-tool-1", type="function", name="f")),
            chunk({}, "stop"),
        ),
        reasoning="Hm",
        tools=(("chatcmpl-tool-1", "f", "{}"),),
    ),
    Replay(
        "vllm-usage-in-every-chunk",
        "vllm",
        lines(
            chunk({"role": "assistant", "content": ""}, usage=usage(5, 0)),
            chunk({"content": "A"}, usage=usage(5, 1)),
            chunk({"content": "B"}, usage=usage(5, 2)),
            chunk({}, "stop", usage=usage(5, 2)),
            last(5, 3),
        ),
        text="AB",
        usage=(5, 3),
    ),
    Replay(
        "relay-usage-before-the-end",
        "generic",
        lines(
            chunk({"role": "assistant", "content": "A"}),
            last(5, 3),
            chunk({"content": "B"}),
            chunk({}, "stop"),
        ),
        text="AB",
        usage=(5, 3),
    ),
    Replay(
        "sglang-null-keys-and-abort",
        "sglang",
        lines(
            chunk({"role": "assistant", "content": "A", "reasoning_content": None, "tool_calls": None}),
            chunk({"role": None, "content": None}, "abort"),
        ),
        text="A",
        error="abort",
    ),
    Replay(
        "sglang-flat-error",
        "sglang",
        lines(
            {
                "object": "error",
                "message": "Request waiting timeout reached.",
                "type": "503",
                "param": None,
                "code": 503,
            },
            done=False,
        ),
        error="waiting timeout",
    ),
    Replay(
        "llamacpp-error-in-mid-stream",
        "llamacpp",
        lines(
            chunk({"role": "assistant", "content": None}),
            chunk({"content": "A"}),
            {"error": {"code": 500, "message": "The model produced output", "type": "server_error"}},
            done=False,
        ),
        text="A",
        error="model produced",
    ),
    Replay(
        "llamacpp-usage-and-timings",
        "llamacpp",
        lines(
            chunk({"role": "assistant", "content": None}),
            chunk({"content": "A"}),
            chunk({}, "stop"),
            last(4, 1, timings={"predicted_ms": 3}),
        ),
        text="A",
        usage=(4, 1),
    ),
    Replay(
        "lmstudio-error-event",
        "lmstudio",
        b'event: error\ndata: {"error":{"message":"The number of tokens to keep from the initial prompt is greater '
        b'than the context length"},"message":"..."}\n\n',
        error="greater than the context length",
    ),
    Replay(
        "ollama-whole-call-and-own-finish",
        "ollama",
        lines(
            chunk(
                {
                    "role": "assistant",
                    "content": "",
                    **piece(WEATHER, index=0, id="call_o2", type="function", name="weather"),
                }
            ),
            chunk({}, "tool_calls"),
            last(15, 15),
        ),
        tools=(("call_o2", "weather", WEATHER),),
        finish="tool_calls",
        usage=(15, 15),
    ),
    Replay(
        "both-reasoning-members",
        "generic",
        lines(
            chunk({"role": "assistant", "reasoning": "Hm", "reasoning_content": "Hm"}),
            chunk({"content": "A"}),
            chunk({}, "stop"),
        ),
        text="A",
        reasoning="Hm",
    ),
    Replay(
        "event-line-behind-its-data",
        "generic",
        lines(
            b"data: "
            + json.dumps(chunk({"role": "assistant", "content": "A"})).encode()
            + b"\nevent: chunk\n\n",
            b"id: 7\nretry: 3000\ndata: " + json.dumps(chunk({}, "stop")).encode() + b"\n\n",
        ),
        text="A",
    ),
    Replay(
        "data-in-two-lines",
        "generic",
        lines(
            b'data: {"id": "c1", "created": 5, "model": "m",\n'
            b'data: "choices": [{"index": 0, "delta": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}]}\n\n'
        ),
        text="A",
    ),
    Replay(
        "cut-without-a-finish-reason",
        "generic",
        lines(chunk({"role": "assistant", "content": "Half"}), done=False),
        text="Half",
        error="",
    ),
    Replay(
        "done-without-a-finish-reason",
        "deepseek",
        lines(chunk({"role": "assistant", "content": "Half"})),
        text="Half",
        error="",
    ),
    Replay(
        "empty-finish-without-a-tool-is-no-end",
        "xai",
        lines(chunk({"role": "assistant", "content": "Half"}, "")),
        text="Half",
        error="",
    ),
    *ANTHROPIC_REPLAYS,
    *GEMINI_REPLAYS,
]
