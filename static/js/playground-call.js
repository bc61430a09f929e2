/* Calls /v1 with a key that the console lends: it lives in this module's memory only. */

/* What the API or the console said instead of an answer. */
export class Refused extends Error {
  constructor(status, error, requestId) {
    super(error?.message ?? `The answer was status ${status}.`);
    this.status = status;
    this.code = error?.code ?? error?.type ?? "";
    this.param = error?.param ?? "";
    this.requestId = requestId;
  }
}

const lent = new Map();

async function keyFor(team, console_, signal) {
  const held = lent.get(team);
  // A minute early, as a request takes its time.
  if (held && held.until - Date.now() > 60_000) return held.secret;
  const sent = new URLSearchParams({ team, csrfmiddlewaretoken: console_.token });
  const response = await fetch(console_.keyUrl, { method: "POST", body: sent, signal });
  if (response.redirected) {
    // The session ended: the way back leads through the sign-in page.
    location.reload();
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.error, "");
  lent.set(team, { secret: answer.secret, until: Date.parse(answer.expires_at) });
  return answer.secret;
}

async function asked(team, body, console_, signal) {
  const secret = await keyFor(team, console_, signal);
  return fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${secret}` },
    body: JSON.stringify(body),
    signal,
  });
}

async function refusal(response) {
  const answer = await response.json().catch(() => ({}));
  return new Refused(response.status, answer.error, response.headers.get("x-request-id"));
}

/* Yields the objects of a stream of server-sent events, until [DONE]. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
    if (done) return;
  }
}

/* Puts a piece of a tool call to what came of it before. */
function addCalls(calls, pieces) {
  for (const piece of pieces ?? []) {
    const call = (calls[piece.index ?? calls.length] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (piece.id) call.id = piece.id;
    call.function.name += piece.function?.name ?? "";
    call.function.arguments += piece.function?.arguments ?? "";
  }
}

/* Asks, and tells of what comes: headers(response) once, then changed(answer) for each piece, where answer is
   {text, calls, usage, finish}. Returns the whole answer. Raises Refused, or AbortError where it is stopped. */
export async function ask({ team, body, console: console_, signal, headers, changed }) {
  let response = await asked(team, body, console_, signal);
  if (response.status === 401) {
    // Another tab was lent the key since.
    lent.delete(team);
    response = await asked(team, body, console_, signal);
  }
  if (!response.ok) throw await refusal(response);
  headers(response);
  const answer = { text: "", calls: [], usage: null, finish: "" };
  if (!body.stream) {
    const whole = await response.json();
    const message = whole.choices?.[0]?.message ?? {};
    Object.assign(answer, {
      text: message.content ?? message.refusal ?? "",
      calls: message.tool_calls ?? [],
      usage: whole.usage ?? null,
      finish: whole.choices?.[0]?.finish_reason ?? "",
    });
    changed(answer);
    return answer;
  }
  for await (const event of events(response.body)) {
    if (event.error) throw new Refused(response.status, event.error, response.headers.get("x-request-id"));
    const choice = event.choices?.[0];
    answer.text += choice?.delta?.content ?? choice?.delta?.refusal ?? "";
    addCalls(answer.calls, choice?.delta?.tool_calls);
    answer.finish = choice?.finish_reason ?? answer.finish;
    answer.usage = event.usage ?? answer.usage;
    changed(answer);
  }
  return answer;
}
