"""Error bodies as providers send them: (name, status, body, reason, what the client gets)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One error of one provider. ``reason`` is the class it belongs to."""

    name: str
    status: int
    body: Any
    reason: str
    code: str | None = None


def nested(message: str, **members: Any) -> dict[str, Any]:
    return {"error": {"message": message, **members}}


# A team's id and a request's id as they turn up in messages; neither may reach a client.
TEAM = "1fae4c51-7b2d-4f0e-9c11-aa5500deadbeef"[:36]
CREDITS = (
    f"Your team {TEAM} has either used all available credits or reached its monthly spending limit. To continue "
    "making API requests, please purchase more credits or raise your spending limit."
)

SAMPLES = [
    # OpenAI
    Sample(
        "openai-unknown-model",
        404,
        nested(
            "The model `gpt-5.2-proo` does not exist or you do not have access to it.",
            type="invalid_request_error",
            param=None,
            code="model_not_found",
        ),
        "unknown_model",
    ),
    Sample(
        "openai-unknown-model-400",
        400,
        nested(
            "The requested model 'gpt-5.2-proo' does not exist.",
            type="invalid_request_error",
            param="model",
            code="model_not_found",
        ),
        "unknown_model",
    ),
    Sample(
        "openai-unsupported-parameter",
        400,
        nested(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            type="invalid_request_error",
            param="max_tokens",
            code="unsupported_parameter",
        ),
        "refused",
        "unsupported_parameter",
    ),
    Sample(
        "openai-unsupported-value",
        400,
        nested(
            "Unsupported value: 'messages[0].role' does not support 'developer' with this model.",
            type="invalid_request_error",
            param="messages[0].role",
            code="unsupported_value",
        ),
        "refused",
        "unsupported_value",
    ),
    Sample(
        "openai-below-minimum",
        400,
        nested(
            "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
            type="invalid_request_error",
            param="temperature",
            code="decimal_below_min_value",
        ),
        "refused",
        "decimal_below_min_value",
    ),
    Sample(
        "openai-no-money",
        429,
        nested(
            "You exceeded your current quota, please check your plan and billing details. For more information on "
            "this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
            type="insufficient_quota",
            param=None,
            code="insufficient_quota",
        ),
        "no_money",
    ),
    Sample(
        "openai-rate",
        429,
        nested(
            "Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Used 29000, "
            "Requested 2000. Please try again in 2s. Visit https://platform.openai.com/account/rate-limits to learn "
            "more.",
            type="tokens",
            param=None,
            code="rate_limit_exceeded",
        ),
        "rate_limited",
    ),
    Sample(
        "openai-request-too-large",
        429,
        nested(
            "Request too large for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Requested "
            "45210. The input or output tokens must be reduced in order to run successfully.",
            type="tokens",
            param=None,
            code="rate_limit_exceeded",
        ),
        "over_limit",
    ),
    Sample(
        "openai-context",
        400,
        nested(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130412 tokens. "
            "Please reduce the length of the messages.",
            type="invalid_request_error",
            param="messages",
            code="context_length_exceeded",
        ),
        "context_window",
    ),
    Sample(
        "openai-context-new-words",
        400,
        nested(
            "Your input exceeds the context window of this model. Please adjust your input and try again."
        ),
        "context_window",
    ),
    Sample(
        "openai-bad-key",
        401,
        nested(
            "Incorrect API key provided: sk-inval****. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            type="invalid_request_error",
            param=None,
            code="invalid_api_key",
        ),
        "credential",
    ),
    Sample(
        "openai-safety",
        400,
        nested(
            "Your request was rejected as a result of our safety system.",
            type="invalid_request_error",
            code="content_policy_violation",
        ),
        "content_filter",
    ),
    Sample(
        "openai-mid-stream",
        200,
        nested(
            "The server had an error processing your request. Sorry about that!",
            type="server_error",
            param=None,
            code=None,
        ),
        "failed",
    ),
    # Azure OpenAI
    Sample(
        "azure-filter",
        400,
        nested(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please "
            "modify your prompt and retry.",
            type=None,
            param="prompt",
            code="content_filter",
            status=400,
            innererror={"code": "ResponsibleAIPolicyViolation"},
        ),
        "content_filter",
    ),
    Sample(
        "azure-no-deployment",
        404,
        nested("The API deployment for this resource does not exist.", code="DeploymentNotFound"),
        "unknown_model",
    ),
    Sample("azure-no-resource", 404, nested("Resource not found", code="404"), "unknown_model"),
    Sample(
        "azure-bad-key",
        401,
        nested("Access denied due to invalid subscription key or wrong API endpoint.", code="401"),
        "credential",
    ),
    Sample(
        "azure-rate",
        429,
        nested(
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2023-12-01-preview have "
            "exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 22 seconds. Please "
            "go here: https://aka.ms/oai/quotaincrease",
            code="429",
        ),
        "rate_limited",
    ),
    # DeepSeek
    Sample(
        "deepseek-bad-key",
        401,
        nested(
            "Authentication Fails, Your api key: ****here is invalid (request_id: 7f3a11)",
            type="authentication_error",
            param=None,
            code="invalid_request_error",
        ),
        "credential",
    ),
    Sample(
        "deepseek-no-money",
        402,
        nested("Insufficient Balance", type="unknown_error", param=None, code="invalid_request_error"),
        "no_money",
    ),
    Sample(
        "deepseek-refused",
        400,
        nested(
            "No tool output found for tool call call-a.",
            type="invalid_request_error",
            param=None,
            code="invalid_request_error",
        ),
        "refused",
    ),
    Sample(
        "deepseek-context",
        400,
        nested(
            "This model's maximum context length is 65536 tokens. However, you requested 70214 tokens (62022 in the "
            "messages, 8192 in the completion). Please reduce the length of the messages or completion.",
            code="invalid_request_error",
        ),
        "context_window",
    ),
    Sample("deepseek-overloaded", 503, nested("Server overloaded"), "overloaded"),
    # Alibaba
    Sample(
        "qwen-bad-key",
        401,
        {
            **nested(
                "Incorrect API key provided. For details, see: "
                "https://help.aliyun.com/zh/model-studio/error-code#apikey-error",
                type="invalid_request_error",
                param=None,
                code="invalid_api_key",
            ),
            "request_id": "0434ce69-1111-2222-3333-444455556666",
        },
        "credential",
    ),
    Sample(
        "qwen-no-money",
        400,
        nested(
            "Access denied, please make sure your account is in good standing. For details, see: "
            "https://help.aliyun.com/zh/model-studio/error-code#overdue-payment",
            type="Arrearage",
            param=None,
            code="Arrearage",
        ),
        "no_money",
    ),
    Sample(
        "qwen-inspection",
        400,
        nested(
            "Input data may contain inappropriate content.",
            type="data_inspection_failed",
            param=None,
            code="data_inspection_failed",
        ),
        "content_filter",
    ),
    Sample(
        "qwen-context",
        400,
        nested("Range of input length should be [1, 30720]", code="InvalidParameter"),
        "context_window",
    ),
    Sample("qwen-rate", 429, nested("Requests rate limit exceeded", code="limit_requests"), "rate_limited"),
    Sample("qwen-throttled", 429, nested("throttled", code="Throttling.AllocationQuota"), "rate_limited"),
    Sample(
        "qwen-unpurchased", 403, nested("Access denied", code="AccessDenied.Unpurchased"), "unknown_model"
    ),
    Sample(
        "qwen-native-leak",
        400,
        {
            "request_id": "0434ce69-1111-2222-3333-444455556666",
            "code": "InvalidParameter",
            "message": "url error, please check url!",
        },
        "refused",
    ),
    # Moonshot
    Sample(
        "moonshot-bad-key",
        401,
        nested("Invalid Authentication", type="invalid_authentication_error"),
        "credential",
    ),
    Sample(
        "moonshot-no-money",
        429,
        nested(
            "Your account is suspended due to insufficient balance, please recharge your account or check your plan "
            "and billing details",
            type="exceeded_current_quota_error",
        ),
        "no_money",
    ),
    Sample(
        "moonshot-rate",
        429,
        nested(
            "Organization Rate limit exceeded, please try again after 1 seconds",
            type="rate_limit_reached_error",
        ),
        "rate_limited",
    ),
    Sample(
        "moonshot-overloaded",
        429,
        nested("The engine is currently overloaded, please try again later", type="engine_overloaded_error"),
        "overloaded",
    ),
    Sample(
        "moonshot-filter",
        400,
        {
            "error": {
                "type": "content_filter",
                "message": "The request was rejected because it was considered high risk",
            }
        },
        "content_filter",
    ),
    Sample(
        "moonshot-context",
        400,
        nested(
            "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)",
            type="invalid_request_error",
        ),
        "context_window",
    ),
    Sample(
        "moonshot-part",
        400,
        nested("Invalid request: invalid part type: file", type="invalid_request_error"),
        "refused",
    ),
    # Zhipu
    Sample("zhipu-bad-key", 401, nested("令牌已过期或验证不正确", code="401"), "credential"),
    Sample("zhipu-no-key", 401, nested("身份验证失败", code="1000"), "credential"),
    Sample(
        "zhipu-unknown-model",
        400,
        nested("Unknown Model, please check the model code.", code="1211"),
        "unknown_model",
    ),
    Sample(
        "zhipu-no-money",
        429,
        nested("Insufficient balance or no resource package. Please recharge.", code="1113"),
        "no_money",
    ),
    Sample("zhipu-rate", 429, nested("Rate limit reached for requests", code="1302"), "rate_limited"),
    Sample("zhipu-context", 400, nested("Prompt exceeds max length", code="1261"), "context_window"),
    Sample("zhipu-filter", 400, nested("unsafe or sensitive content", code=1301), "content_filter"),
    # Doubao
    Sample(
        "doubao-unknown-model",
        404,
        nested(
            "The model or endpoint ep-2026-abcde does not exist or you do not have access to it. Request id: "
            "0217abcdef0123456789abcdef",
            param="",
            code="InvalidEndpointOrModel.NotFound",
            type="NotFound",
        ),
        "unknown_model",
    ),
    Sample(
        "doubao-bad-key",
        401,
        nested(
            "The API key or AK/SK in the request is missing or invalid. Request ID: 0217abcdef0123456789",
            code="AuthenticationError",
            type="Unauthorized",
        ),
        "credential",
    ),
    Sample(
        "doubao-no-money",
        403,
        nested(
            "The request failed because your account has an overdue balance. Request ID: 0217abcdef0123456789",
            code="AccountOverdueError",
            type="Forbidden",
        ),
        "no_money",
    ),
    Sample(
        "doubao-rate",
        429,
        nested("limit", code="RateLimitExceeded.EndpointTPMExceeded", type="TooManyRequests"),
        "rate_limited",
    ),
    Sample(
        "doubao-rpm",
        429,
        nested("limit", code="ModelAccountRpmRateLimitExceeded", type="TooManyRequests"),
        "rate_limited",
    ),
    Sample("doubao-quota", 429, nested("gone", code="QuotaExceeded", type="TooManyRequests"), "no_money"),
    Sample("doubao-cap", 429, nested("cap", code="SetLimitExceeded", type="TooManyRequests"), "no_money"),
    Sample(
        "doubao-overloaded",
        429,
        nested("busy", code="ServerOverloaded", type="TooManyRequests"),
        "overloaded",
    ),
    Sample("doubao-filter", 400, nested("no", code="InputTextSensitiveContentDetected"), "content_filter"),
    Sample("doubao-filter-2", 400, nested("no", code="SensitiveContentDetected.Violence"), "content_filter"),
    Sample("doubao-context", 400, nested("long", code="OutofContextError"), "context_window"),
    Sample("doubao-failed", 500, nested("oops", code="InternalServiceError"), "failed"),
    # MiniMax
    Sample(
        "minimax-no-money",
        402,
        {
            "type": "error",
            "error": {
                "type": "insufficient_balance_error",
                "message": "insufficient balance (1008)",
                "http_code": "402",
            },
        },
        "no_money",
    ),
    Sample(
        "minimax-no-money-500",
        500,
        {"type": "error", "error": {"type": "api_error", "message": "insufficient balance (1008)"}},
        "no_money",
    ),
    Sample(
        "minimax-no-money-200",
        200,
        {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None},
        "no_money",
    ),
    Sample(
        "minimax-bad-key",
        401,
        {
            "type": "error",
            "error": {
                "type": "authorized_error",
                "message": "login fail: Please carry the API secret key in the 'Authorization' field (1004)",
            },
        },
        "credential",
    ),
    Sample(
        "minimax-wrong-host",
        200,
        {"base_resp": {"status_code": 2049, "status_msg": "invalid api key"}},
        "credential",
    ),
    Sample(
        "minimax-rate",
        429,
        {
            "type": "error",
            "error": {"type": "rate_limit_error", "message": "rate limit, please retry later (1002)"},
        },
        "rate_limited",
    ),
    Sample(
        "minimax-filter",
        422,
        {
            "error": {
                "type": "unprocessable_entity_error",
                "message": "input contains sensitive content (1026)",
            }
        },
        "content_filter",
    ),
    Sample(
        "minimax-params",
        400,
        {"error": {"type": "bad_request_error", "message": "invalid params, temperature (2013)"}},
        "refused",
    ),
    Sample(
        "minimax-params-200",
        200,
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params"}},
        "refused",
    ),
    Sample(
        "minimax-plan",
        500,
        {"code": 1000, "message": "your current token plan not support model, MiniMax-Text-01 (2061)"},
        "unknown_model",
    ),
    Sample(
        "minimax-failed",
        500,
        {"error": {"type": "server_error", "message": "internal error (1000)"}},
        "failed",
    ),
    # Mistral
    Sample("mistral-bad-key", 401, {"detail": "Unauthorized"}, "credential"),
    Sample("mistral-bad-key-2", 401, {"message": "Unauthorized", "request_id": "a1b2"}, "credential"),
    Sample(
        "mistral-context",
        400,
        {
            "object": "error",
            "message": "Prompt contains 170397 tokens and 0 draft tokens, too large for model with 131072 maximum "
            "context length",
            "type": "invalid_request_invalid_args",
            "param": None,
            "code": "3051",
        },
        "context_window",
    ),
    Sample(
        "mistral-top-k",
        400,
        {"object": "error", "message": "top_k sampling is not enabled for this model", "code": "3051"},
        "refused",
    ),
    Sample(
        "mistral-tool-id",
        400,
        {
            "object": "error",
            "message": "Tool call id was turn1_0 but must be a-z, A-Z, 0-9, with a length of 9.",
            "type": "invalid_function_call",
            "param": None,
            "code": "3280",
        },
        "refused",
        "invalid_function_call",
    ),
    Sample(
        "mistral-unknown-model",
        400,
        {"object": "error", "message": "Invalid model: xyz", "type": "invalid_model", "code": "1500"},
        "unknown_model",
    ),
    Sample(
        "mistral-capacity",
        429,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "service_tier_capacity_exceeded",
            "code": "3505",
        },
        "overloaded",
    ),
    Sample(
        "mistral-rate",
        429,
        {
            "object": "error",
            "message": "Rate limit exceeded",
            "type": "rate_limited",
            "param": None,
            "code": "1300",
        },
        "rate_limited",
    ),
    Sample(
        "mistral-tier",
        403,
        {
            "object": "error",
            "message": "This model is not available in your subscription tier",
            "type": "tier_not_allowed",
            "code": "1910",
        },
        "unknown_model",
    ),
    Sample(
        "mistral-extra",
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "foo"],
                        "msg": "Extra inputs are not permitted",
                        "input": "the secret of the prompt",
                    }
                ]
            },
            "type": "invalid_request_error",
            "code": None,
        },
        "refused",
    ),
    Sample(
        "mistral-bare-detail",
        422,
        {"detail": [{"type": "missing", "msg": "Field required", "input": "the secret of the prompt"}]},
        "refused",
    ),
    # Groq
    Sample(
        "groq-unknown-model",
        404,
        nested(
            "The model `non-existent` does not exist or you do not have access to it.",
            type="invalid_request_error",
            code="model_not_found",
        ),
        "unknown_model",
    ),
    Sample(
        "groq-tool",
        400,
        nested(
            "Tool call validation failed: attempted to call tool 'x'",
            type="invalid_request_error",
            code="tool_use_failed",
            failed_generation='{"name": "the secret of the prompt"}',
        ),
        "refused",
        "tool_use_failed",
    ),
    Sample(
        "groq-rate-with-billing",
        429,
        nested(
            "Rate limit reached for model `openai/gpt-oss-120b` in organization `org_01abc` service tier `on_demand` "
            "on tokens per day (TPD): Limit 8000, Used 6644, Requested 2931. Please try again in 1h34m52.896s. Need "
            "more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        "rate_limited",
    ),
    Sample(
        "groq-too-large",
        413,
        nested(
            "Request too large for model `llama-3.3-70b-versatile` in organization `org_01abc` on tokens per minute "
            "(TPM): Limit 12000, Requested 18532",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        "over_limit",
    ),
    Sample("groq-capacity", 498, nested("flex capacity exceeded"), "overloaded"),
    Sample(
        "groq-gone", 400, nested("It has been decommissioned", code="model_decommissioned"), "unknown_model"
    ),
    # Together
    Sample(
        "together-bad-key",
        401,
        nested(
            "Invalid API key provided. You can find your API key at https://api.together.ai/settings/api-keys.",
            type="invalid_request_error",
            param=None,
            code="invalid_api_key",
        ),
        "credential",
    ),
    Sample(
        "together-context",
        403,
        nested("Input token count + max_tokens must be less than the context length"),
        "context_window",
    ),
    Sample("together-spent", 402, nested("You have reached your spend limit"), "no_money"),
    # Fireworks
    Sample(
        "fireworks-bad-key",
        401,
        nested("The API key you provided is invalid.", param=None, code=401, type="error"),
        "credential",
    ),
    Sample(
        "fireworks-unknown-model",
        404,
        nested(
            "Model not found, inaccessible, and/or not deployed",
            param="model",
            code="NOT_FOUND",
            type="error",
        ),
        "unknown_model",
    ),
    Sample(
        "fireworks-extra",
        400,
        nested(
            "Extra inputs are not permitted, field: 'promptCacheKey', value: 'the secret of the prompt'",
            object="error",
            type="invalid_request_error",
            code="invalid_request_error",
        ),
        "refused",
    ),
    Sample("fireworks-suspended", 412, nested("Account suspended"), "no_money"),
    # xAI
    Sample(
        "xai-bad-key",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: as***sf. You can obtain an API key from https://console.x.ai.",
        },
        "credential",
    ),
    Sample(
        "xai-context",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 179111 tokens.",
        },
        "context_window",
    ),
    Sample(
        "xai-unknown-model",
        404,
        {
            "code": "not-found",
            "error": f"The model grok-2-latest does not exist or your team {TEAM} does not have access to it.",
        },
        "unknown_model",
    ),
    Sample(
        "xai-unknown-model-400",
        400,
        {"code": "invalid-argument", "error": "Model not found: grok-2-latest"},
        "unknown_model",
    ),
    Sample("xai-no-money-403", 403, {"code": "permission-denied", "error": CREDITS}, "no_money"),
    Sample(
        "xai-no-money-429", 429, {"code": "Some resource has been exhausted", "error": CREDITS}, "no_money"
    ),
    Sample(
        "xai-unavailable-200",
        200,
        {"code": "The service is currently unavailable", "error": "Model is at capacity."},
        "overloaded",
    ),
    Sample(
        "xai-nested",
        400,
        nested("Bad value", type="invalid_request_error", code="invalid_value"),
        "refused",
        "invalid_value",
    ),
    Sample("xai-string", 400, {"error": "speed must be between 0.7 and 1.5"}, "refused"),
    # OpenRouter
    Sample("openrouter-no-key", 401, nested("Missing Authentication header", code=401), "credential"),
    Sample("openrouter-user", 401, nested("User not found.", code=401), "credential"),
    Sample(
        "openrouter-no-money",
        402,
        nested("Insufficient credits. Purchase more at https://openrouter.ai/settings/credits", code=402),
        "no_money",
    ),
    Sample(
        "openrouter-unknown-model",
        400,
        {**nested("openai/gpt-oss-90b is not a valid model ID", code=400), "user_id": "user_2wT5abcdef"},
        "unknown_model",
    ),
    Sample(
        "openrouter-rate",
        429,
        nested(
            "Provider returned error",
            code=429,
            metadata={
                "raw": "google/gemini-2.0-flash-exp:free is temporarily rate-limited upstream. Please retry shortly, "
                "or add your own key",
                "provider_name": "Google",
            },
        ),
        "rate_limited",
    ),
    Sample(
        "openrouter-moderation",
        403,
        nested(
            'openai/gpt requires moderation on OpenRouter. Your input was flagged for "harassment".',
            code=403,
            metadata={"reasons": ["harassment"], "flagged_input": "the secret of the prompt"},
        ),
        "content_filter",
    ),
    Sample(
        "openrouter-context",
        400,
        nested(
            "This endpoint's maximum context length is 131072 tokens. However, you requested about 140213 tokens "
            "(132021 of text input, 8192 in the output).",
            code=400,
        ),
        "context_window",
    ),
    Sample(
        "openrouter-context-inside",
        400,
        nested(
            "Provider returned error",
            code=400,
            metadata={"raw": '{"error":{"message":"prompt is too long"}}', "provider_name": "Anthropic"},
        ),
        "context_window",
    ),
    Sample(
        "lmstudio-format", 400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}, "refused"
    ),
    Sample(
        "sglang-schema",
        400,
        {"object": "error", "message": "bad schema", "type": "BadRequestError", "param": None, "code": 400},
        "refused",
    ),
    Sample(
        "groq-tool-validation",
        400,
        nested(
            "Tool call validation failed: parameters for tool weather did not match schema",
            type="invalid_request_error",
            code="tool_use_failed",
            failed_generation='{"name": "the secret of the prompt"}',
        ),
        "refused",
        "tool_use_failed",
    ),
    Sample(
        "doubao-account-rate",
        429,
        nested(
            "The account is over its rate. Request id: 0217abc",
            code="AccountRateLimitExceeded",
            type="TooManyRequests",
        ),
        "rate_limited",
    ),
    Sample(
        "doubao-missing-parameter",
        400,
        nested(
            "The request is missing a parameter. Request id: 0217abc",
            code="MissingParameter",
            type="BadRequest",
        ),
        "refused",
    ),
    Sample(
        "mistral-order",
        400,
        {
            "object": "error",
            "message": "Unexpected role 'user' after role 'tool'",
            "type": "invalid_request_message_order",
            "param": None,
            "code": "3230",
            "raw_status_code": 400,
        },
        "refused",
        "invalid_request_message_order",
    ),
    Sample("openrouter-mid-stream", 200, nested("Token limit reached", code=400), "refused"),
    # Gemini, as its compatible endpoint wraps errors
    Sample(
        "gemini-bad-key",
        400,
        [nested("API key not valid. Please pass a valid API key.", code=400, status="INVALID_ARGUMENT")],
        "credential",
    ),
    Sample(
        "gemini-unknown-model",
        404,
        nested("models/gemini-3.6-flahs is not found for API version v1beta", code=404, status="NOT_FOUND"),
        "unknown_model",
    ),
    Sample(
        "gemini-rate",
        429,
        nested(
            "You exceeded your current quota, please check your plan.",
            code=429,
            status="RESOURCE_EXHAUSTED",
            details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}],
        ),
        "rate_limited",
    ),
    Sample(
        "gemini-context",
        400,
        nested(
            "The input token count (1236429) exceeds the maximum number of tokens allowed (1048575).",
            code=400,
            status="INVALID_ARGUMENT",
        ),
        "context_window",
    ),
    Sample(
        "gemini-overloaded",
        503,
        nested("The model is overloaded. Please try again later.", code=503, status="UNAVAILABLE"),
        "overloaded",
    ),
    Sample(
        "gemini-array",
        400,
        [
            nested(
                "Please ensure that function call turn comes immediately after a user turn or after a function "
                "response turn.",
                code=400,
                status="INVALID_ARGUMENT",
            )
        ],
        "refused",
    ),
    # Anthropic
    Sample(
        "anthropic-unknown-model",
        404,
        {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-sonet-4-5"}},
        "unknown_model",
    ),
    Sample(
        "anthropic-bad-key",
        401,
        {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
        "credential",
    ),
    Sample(
        "anthropic-context",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 208310 tokens > 200000 maximum",
            },
        },
        "context_window",
    ),
    Sample(
        "anthropic-no-money",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing "
                "to upgrade or purchase credits.",
            },
        },
        "no_money",
    ),
    Sample(
        "anthropic-overloaded",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "overloaded",
    ),
    Sample(
        "anthropic-overloaded-mid-stream",
        200,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "overloaded",
    ),
    Sample(
        "anthropic-rate",
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed"}},
        "rate_limited",
    ),
    Sample("anthropic-geography", 403, nested("Request not allowed", type="forbidden"), "credential"),
    # Bedrock and Cohere, as they are met behind relays
    Sample(
        "bedrock-throttle",
        429,
        {"message": "Too many tokens, please wait before trying again."},
        "rate_limited",
    ),
    Sample(
        "bedrock-throttle-400",
        400,
        nested("Too many tokens, please wait before trying again.", type="too_many_requests", code="429"),
        "rate_limited",
    ),
    Sample("bedrock-context", 400, {"message": "Input is too long for requested model."}, "context_window"),
    Sample(
        "bedrock-unknown-model",
        400,
        {"message": "The provided model identifier is invalid."},
        "unknown_model",
    ),
    Sample("cohere-bad-key", 401, {"message": "invalid api token"}, "credential"),
    # Servers that people run
    Sample(
        "vllm-context",
        400,
        nested(
            "This model's maximum context length is 262144 tokens. However, you requested 0 output tokens and your "
            "prompt contains at least 262145 input tokens, ",
            type="BadRequestError",
            param="input_tokens",
            code=400,
        ),
        "context_window",
    ),
    Sample(
        "vllm-unknown-model",
        404,
        nested("The model `x` does not exist.", type="NotFoundError", param="model", code=404),
        "unknown_model",
    ),
    Sample(
        "vllm-tools",
        400,
        {
            "object": "error",
            "message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        "refused",
    ),
    Sample(
        "sglang-context",
        400,
        {
            "object": "error",
            "message": "Requested input length 132490 exceeds maximum input length 32767",
            "code": 400,
        },
        "context_window",
    ),
    Sample(
        "sglang-timeout",
        503,
        {
            "object": "error",
            "message": "Request waiting timeout reached.",
            "type": "503",
            "param": None,
            "code": 503,
        },
        "overloaded",
    ),
    Sample(
        "ollama-unknown-model",
        404,
        nested("model 'x' not found", type="not_found_error", param=None, code=None),
        "unknown_model",
    ),
    Sample(
        "llamacpp-context",
        400,
        nested(
            "request (13392 tokens) exceeds the available context size (8192 tokens), try increasing it",
            code=400,
            type="exceed_context_size_error",
        ),
        "context_window",
    ),
    Sample(
        "llamacpp-loading", 503, nested("Loading model", code=503, type="unavailable_error"), "overloaded"
    ),
    Sample(
        "llamacpp-image",
        500,
        nested("image input is not supported - hint: use a multimodal model", code=500, type="server_error"),
        "refused",
    ),
    Sample(
        "llamacpp-mid-stream",
        200,
        nested(
            "The model produced output that does not match the expected peg-native format",
            code=500,
            type="server_error",
        ),
        "failed",
    ),
    Sample(
        "lmstudio-string",
        400,
        {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"},
        "refused",
    ),
    Sample(
        "lmstudio-context",
        200,
        nested("The number of tokens to keep from the initial prompt is greater than the context length..."),
        "context_window",
    ),
    # The rest of provider-quirks.md
    Sample(
        "deepseek-the-word-json",
        400,
        nested(
            "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
        ),
        "refused",
    ),
    Sample(
        "deepseek-tool-type",
        400,
        nested("unknown variant `namespace`, expected `function`", code="invalid_request_error"),
        "refused",
    ),
    Sample("deepseek-params", 422, nested("Invalid parameters", type="invalid_request_error"), "refused"),
    Sample(
        "qwen-unknown-model",
        404,
        nested("The model `x` does not exist or you do not have access to it.", code="model_not_found"),
        "unknown_model",
    ),
    Sample(
        "qwen-not-bought", 403, nested("Access denied.", code="AccessDenied.Unpurchased"), "unknown_model"
    ),
    Sample("qwen-allocation", 429, nested("Too much.", code="Throttling.AllocationQuota"), "rate_limited"),
    Sample("qwen-limit-requests", 429, nested("Too much.", code="limit_requests"), "rate_limited"),
    Sample("qwen-quota", 429, nested("Too much.", code="insufficient_quota"), "no_money"),
    Sample(
        "qwen-output-inspection",
        200,
        nested("Output data may contain inappropriate content.", code="data_inspection_failed"),
        "content_filter",
        "content_filter",
    ),
    Sample(
        "moonshot-bad-key-2",
        401,
        nested("Incorrect API key provided", type="incorrect_api_key_error"),
        "credential",
    ),
    Sample(
        "moonshot-unknown-model", 404, nested("Not found", type="resource_not_found_error"), "unknown_model"
    ),
    Sample("moonshot-not-allowed", 403, nested("Denied", type="permission_denied_error"), "credential"),
    Sample("zhipu-bad-key-in-english", 401, nested("token expired or incorrect", code="401"), "credential"),
    Sample("zhipu-network", 434, nested("Not allowed from here"), "failed"),
    Sample(
        "doubao-not-open", 404, nested("Not open.", code="ModelNotOpen", type="NotFound"), "unknown_model"
    ),
    Sample("doubao-burst", 429, nested("Slow down.", code="RequestBurstTooFast"), "rate_limited"),
    Sample("doubao-inflight", 429, nested("Slow down.", code="InflightBatchsizeExceeded"), "rate_limited"),
    Sample(
        "doubao-account-tpm",
        429,
        nested("Slow down.", code="ModelAccountTpmRateLimitExceeded"),
        "rate_limited",
    ),
    Sample(
        "doubao-parameter", 400, nested("No such.", code="InvalidParameter.UnsupportedParameter"), "refused"
    ),
    Sample(
        "minimax-timeout-200", 200, {"base_resp": {"status_code": 1001, "status_msg": "timeout"}}, "timeout"
    ),
    Sample("minimax-tpm-200", 200, {"base_resp": {"status_code": 1039, "status_msg": "tpm"}}, "rate_limited"),
    Sample(
        "minimax-out-200",
        200,
        {"base_resp": {"status_code": 1027, "status_msg": "output sensitive"}},
        "content_filter",
        "content_filter",
    ),
    Sample("minimax-plan-used-200", 200, {"base_resp": {"status_code": 2056, "status_msg": "x"}}, "no_money"),
    Sample("groq-gone", 400, nested("Gone.", code="model_decommissioned"), "unknown_model"),
    Sample("together-overloaded", 503, nested("Overloaded"), "overloaded"),
    Sample(
        "fireworks-key-as-number", 401, nested("The API key you provided is invalid.", code=401), "credential"
    ),
    Sample(
        "xai-no-money-429", 429, {"code": "Some resource has been exhausted", "error": CREDITS}, "no_money"
    ),
    Sample("openrouter-no-credentials", 401, nested("No auth credentials found", code=401), "credential"),
    Sample(
        "openrouter-more-credits",
        402,
        nested("This request requires more credits, or fewer max_tokens.", code=402),
        "no_money",
    ),
    Sample(
        "perplexity-bad-key",
        401,
        nested("Invalid API key provided.", type="invalid_api_key", code=401),
        "credential",
    ),
    Sample(
        "anthropic-billing",
        402,
        {"type": "error", "error": {"type": "billing_error", "message": "Billing."}},
        "no_money",
    ),
    Sample(
        "anthropic-permission",
        403,
        {"type": "error", "error": {"type": "permission_error", "message": "No."}},
        "credential",
    ),
    Sample(
        "anthropic-too-large",
        413,
        {
            "type": "error",
            "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"},
        },
        "refused",
        "request_too_large",
    ),
    Sample(
        "anthropic-failed",
        500,
        {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}},
        "failed",
    ),
    Sample(
        "bedrock-refused",
        400,
        {
            "message": "The model returned the following errors: messages.2.content.2.document.source.type: Field "
            "required"
        },
        "refused",
    ),
    Sample("bedrock-route", 404, {"message": "model `x` isn't supported on this route"}, "unknown_model"),
    Sample(
        "cohere-unknown-model",
        404,
        {
            "id": "8bd5b608-1111-2222-3333-444455556666",
            "message": "model 'nonexistent' not found, make sure the correct model ID was used and that you have "
            "access to the model.",
        },
        "unknown_model",
    ),
    Sample("cohere-context", 400, {"message": "too many tokens: size limit exceeded"}, "context_window"),
    Sample(
        "vllm-flat",
        400,
        {"object": "error", "message": "Bad.", "type": "BadRequestError", "param": None, "code": 400},
        "refused",
    ),
    Sample(
        "sglang-length",
        400,
        {"object": "error", "message": "The input (9 tokens) is longer than the model's context length (8)."},
        "context_window",
    ),
    Sample("ollama-native", 400, {"error": "json: cannot unmarshal"}, "refused"),
    Sample(
        "llamacpp-loading",
        503,
        nested("Loading model", code=503, type="unavailable_error"),
        "overloaded",
    ),
    # Look-alikes
    Sample("a-429-in-the-words", 400, nested("Value 429 is not one of the allowed values."), "refused"),
    Sample(
        "a-429-that-speaks-of-length", 429, nested("Maximum input length per minute reached."), "rate_limited"
    ),
    Sample("an-html-page", 502, "<html>", "failed"),
    Sample("an-html-page-403", 403, "<html>", "credential"),
    Sample("nothing-at-all", 500, None, "failed"),
]
