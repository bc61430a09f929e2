/* The playground's page: a conversation, its settings, what the last answer took, the same in code. */

import { ask, Refused } from "./playground-call.js";
import { codeOf } from "./playground-code.js";

const by = (id) => document.getElementById(id);
const form = by("playground");
const models = JSON.parse(by("models-by-team").textContent);
const link = {
  keyUrl: form.dataset.keyUrl,
  token: form.elements.namedItem("csrfmiddlewaretoken").value,
};
const EXAMPLES = {
  tools: [
    {
      type: "function",
      function: {
        name: "weather",
        description: "The weather at a place.",
        parameters: {
          type: "object",
          properties: { place: { type: "string" } },
          required: ["place"],
        },
      },
    },
  ],
  schema: {
    type: "object",
    properties: { title: { type: "string" }, tags: { type: "array", items: { type: "string" } } },
    required: ["title", "tags"],
    additionalProperties: false,
  },
};

// Messages as /v1 takes them, without the system's; and the tool calls whose results are awaited.
let conversation = [];
let awaited = [];
let running = null;

/* --- The request ------------------------------------------------------------------------------ */

/* What is in a field of JSON; undefined if it is empty. An error is shown beside it. */
function parsed(id, fits) {
  const text = by(id).value.trim();
  const box = by(`${id}-error`);
  let value;
  let wrong = "";
  try {
    if (text) value = JSON.parse(text);
    if (text) wrong = fits(value);
  } catch (error) {
    wrong = `This is not JSON: ${error.message}`;
  }
  box.hidden = !wrong;
  box.replaceChildren();
  by(id).closest(".field").classList.toggle("invalid", Boolean(wrong));
  if (wrong) {
    const item = document.createElement("li");
    item.textContent = wrong;
    box.append(item);
    value = undefined;
  }
  return { value, wrong };
}

function settings() {
  const tools = parsed("tools", (value) => (Array.isArray(value) ? "" : "Tools are a list: [ … ]."));
  const schema = parsed("schema", (value) =>
    value !== null && typeof value === "object" && !Array.isArray(value) ? "" : "A schema is an object: { … }.",
  );
  const body = {};
  if (by("temperature").value !== "") body.temperature = Number(by("temperature").value);
  if (by("most").value !== "") body.max_completion_tokens = Number(by("most").value);
  if (tools.value?.length) body.tools = tools.value;
  if (schema.value)
    body.response_format = {
      type: "json_schema",
      json_schema: { name: "answer", schema: schema.value, strict: true },
    };
  if (by("stream").checked) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  return { body, wrong: tools.wrong ? "tools" : schema.wrong ? "schema" : "" };
}

function request(messages) {
  const { body, wrong } = settings();
  const system = by("system").value.trim();
  const all = system ? [{ role: "system", content: system }, ...messages] : messages;
  return { body: { model: by("model").value, messages: all, ...body }, wrong };
}

function paintCode() {
  const typed = by("message").value.trim();
  const messages = typed && !awaited.length ? [...conversation, { role: "user", content: typed }] : conversation;
  const { body } = request(messages.length ? messages : [{ role: "user", content: "Hello" }]);
  for (const [name, code] of Object.entries(codeOf(body, form.dataset.baseUrl))) by(`code-${name}`).textContent = code;
}

/* --- The conversation ------------------------------------------------------------------------- */

const ROLES = { user: "You", assistant: "Model", tool: "Tool's result" };

function turn(role) {
  const item = document.createElement("li");
  item.className = `turn ${role}`;
  const name = document.createElement("span");
  name.className = "turn-role";
  name.textContent = role === "assistant" ? by("model").value : ROLES[role];
  const text = document.createElement("div");
  text.className = "turn-text";
  item.append(name, text);
  by("thread").append(item);
  by("thread").hidden = false;
  return item;
}

function paintAnswer(item, answer) {
  item.querySelector(".turn-text").textContent = answer.text;
  const calls = answer.calls.filter(Boolean).map((call) => {
    const box = item.querySelector(`[data-call="${CSS.escape(call.id)}"]`) ?? document.createElement("pre");
    box.dataset.call = call.id;
    box.textContent = `${call.function.name}(${call.function.arguments})`;
    return box;
  });
  for (const box of item.querySelectorAll("pre")) box.remove();
  item.append(...calls);
}

function say(text) {
  by("state").textContent = text;
}

function paintComposer() {
  const call = awaited[0];
  by("message-label").textContent = call ? `Result of ${call.function.name}` : "Message";
  by("message").placeholder = call ? "What the tool gives back" : "Ask something";
  by("send").hidden = Boolean(running);
  by("stop").hidden = !running;
  paintCode();
}

/* --- What it took ----------------------------------------------------------------------------- */

const seconds = (ms) => (ms === null || ms === undefined ? "–" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
const count = (number) => (number ?? "–").toLocaleString("en");

function figure(name, text) {
  by(`figure-${name}`).textContent = text;
}

function paintFigures({ headers, usage, first, whole }) {
  const id = headers.get("x-request-id");
  by("figures").hidden = false;
  by("request-link").hidden = !id;
  if (id) by("request-link").href = `${form.dataset.requestsUrl}${encodeURIComponent(id)}/`;
  figure("charge", id ? "…" : "Request ids are hidden here");
  figure("input", count(usage?.prompt_tokens));
  figure("output", count(usage?.completion_tokens));
  figure("first", seconds(first));
  figure("duration", seconds(whole));
  figure("deployment", headers.get("x-weir-deployment") ?? "–");
  return id;
}

/* The figures of the books, once the request is in them. */
async function paintBooked(id) {
  for (let left = 20; left > 0; left -= 1) {
    const response = await fetch(`${form.dataset.usageUrl}?request=${encodeURIComponent(id)}`);
    const booked = response.ok ? await response.json() : { known: false };
    if (!by("request-link").href.includes(encodeURIComponent(id))) return;
    if (booked.known) {
      figure("charge", `$${booked.charge}`);
      figure("input", count(booked.input_tokens) + (booked.cached_tokens ? `, ${count(booked.cached_tokens)} cached` : ""));
      figure("output", count(booked.output_tokens) + (booked.reasoning_tokens ? `, ${count(booked.reasoning_tokens)} reasoning` : ""));
      if (booked.deployment) figure("deployment", booked.deployment);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  figure("charge", "Not booked yet");
}

function showProblem(error) {
  by("problem").hidden = false;
  by("problem-text").textContent = error.message;
  const facts = [
    error.status && `Status ${error.status}`,
    error.code && `code ${error.code}`,
    error.param && `param ${error.param}`,
    error.requestId && `request ${error.requestId}`,
  ];
  by("problem-facts").textContent = facts.filter(Boolean).join(", ");
}

/* --- Sending ---------------------------------------------------------------------------------- */

/* Takes what was typed into the conversation; false if more is awaited before it can be sent. */
function take(text) {
  const call = awaited.shift();
  const message = call ? { role: "tool", tool_call_id: call.id, content: text } : { role: "user", content: text };
  conversation.push(message);
  turn(message.role).querySelector(".turn-text").textContent = text;
  by("message").value = "";
  return awaited.length === 0;
}

async function send() {
  const text = by("message").value.trim();
  const { wrong } = settings();
  if (running || !by("model").value) return;
  if (wrong) {
    by(wrong).closest("details").open = true;
    by(wrong).focus();
    return;
  }
  // After an error the same is sent again without typing.
  const again = !awaited.length && conversation.length && conversation.at(-1).role !== "assistant";
  if (!text && !again) {
    by("message").focus();
    return;
  }
  by("problem").hidden = true;
  if (text && !take(text)) {
    paintComposer();
    return;
  }
  const mine = conversation;
  running = new AbortController();
  const begun = performance.now();
  let headers = new Headers();
  let first = null;
  const item = turn("assistant");
  let shown = { text: "", calls: [], usage: null };
  paintComposer();
  say("Asking …");
  try {
    shown = await ask({
      team: by("team").value,
      body: request(conversation).body,
      console: link,
      signal: running.signal,
      headers: (response) => (headers = response.headers),
      changed: (answer) => {
        if (conversation !== mine) return;
        shown = answer;
        first ??= performance.now() - begun;
        paintAnswer(item, answer);
        say("Answering …");
      },
    });
    say(shown.finish === "length" ? "Cut off: it reached the most tokens out." : "Answered.");
  } catch (error) {
    if (error.name === "AbortError") say(conversation === mine ? "Stopped." : "");
    else {
      say("");
      showProblem(error instanceof Refused ? error : new Error("The gateway cannot be reached. Check your connection."));
    }
  }
  // Cleared in the meantime: nothing of it belongs to what is there.
  if (conversation !== mine) return;
  running = null;
  finish(item, shown);
  const id = paintTaken(headers, shown, first, performance.now() - begun);
  if (id) await paintBooked(id);
}

function paintTaken(headers, shown, first, whole) {
  return headers.has("content-type") ? paintFigures({ headers, usage: shown.usage, first, whole }) : null;
}

/* Takes the answer into the conversation, as far as it came. */
function finish(item, shown) {
  const calls = shown.calls.filter(Boolean);
  if (!shown.text && !calls.length) item.remove();
  else {
    const message = { role: "assistant", content: shown.text || null };
    if (calls.length) message.tool_calls = calls;
    conversation.push(message);
    awaited = [...calls];
  }
  paintComposer();
  by("message").focus();
}

/* --- The page --------------------------------------------------------------------------------- */

function paintModels() {
  const before = by("model").value;
  const names = models[by("team").value] ?? [];
  by("model").replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) by("model").value = before;
  by("model-hint").hidden = names.length > 0;
  by("send").disabled = names.length === 0;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
form.addEventListener("input", paintCode);
by("team").addEventListener("change", () => {
  paintModels();
  paintCode();
});
by("stop").addEventListener("click", () => running?.abort());
by("clear").addEventListener("click", () => {
  running?.abort();
  running = null;
  conversation = [];
  awaited = [];
  by("thread").replaceChildren();
  by("thread").hidden = by("figures").hidden = by("problem").hidden = true;
  say("");
  paintComposer();
  by("message").focus();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    by(button.dataset.example).value = JSON.stringify(EXAMPLES[button.dataset.example], null, 2);
    paintCode();
  });
}

paintModels();
paintComposer();
