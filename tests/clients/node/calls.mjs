// One call to Weir with the OpenAI SDK for Node, told on standard output as one line of JSON.
// `node calls.mjs NAME`; WEIR_URL, WEIR_KEY, WEIR_MODEL, WEIR_USER and WEIR_TEXT say where, as whom and what.
import OpenAI from "openai";

const { WEIR_URL, WEIR_KEY, WEIR_MODEL: model = "sim-small", WEIR_USER: user = "node", WEIR_TEXT } = process.env;
const client = new OpenAI({ baseURL: `${WEIR_URL}/v1`, apiKey: WEIR_KEY, maxRetries: 2, timeout: 60_000 });
const messages = [{ role: "user", content: WEIR_TEXT || "one two three" }];
const ask = { model, messages, user };
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: {
        type: "object",
        properties: { city: { type: "string", enum: ["Berlin"] } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
];

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return {
      kind: error.constructor.name,
      status: error.status,
      code: error.code,
      type: error.type,
      requestId: error.requestID,
    };
  }
  return { kind: "none" };
}

// A format that the SDK's parse() reads, as its own helpers make one.
function parseable(format) {
  return Object.defineProperties(format, {
    $brand: { value: "auto-parseable-response-format", enumerable: false },
    $parseRaw: { value: JSON.parse, enumerable: false },
  });
}

// What each call tells of each of the models that WEIR_MODEL lists, as [text, object or arguments, end].
async function everyKind() {
  const said = (word) => [{ role: "user", content: word }];
  const schema = { name: "city", strict: true, schema: tools[0].function.parameters };
  schema.schema = { ...schema.schema, properties: { city: { type: "string" } } };
  const called = [{ type: "function", function: { ...tools[0].function, parameters: schema.schema } }];
  const ofChat = ({ choices: [{ message, finish_reason }] }) => [
    message.tool_calls?.length ? JSON.parse(message.tool_calls[0].function.arguments) : (message.parsed ?? message.content),
    finish_reason,
  ];
  const ofResponse = (answer) => {
    const made = answer.output.find((item) => item.type === "function_call");
    return [made ? JSON.parse(made.arguments) : (answer.output_parsed ?? answer.output_text), answer.status];
  };
  const all = {
    plain: async (model) => ofChat(await client.chat.completions.create({ model, messages: said("say text") })),
    parsed: async (model) =>
      ofChat(
        await client.chat.completions.parse({
          model,
          messages: said("say city"),
          response_format: parseable({ type: "json_schema", json_schema: schema }),
        }),
      ),
    streamed: async (model) =>
      ofChat(await client.chat.completions.stream({ model, messages: said("say text") }).finalChatCompletion()),
    streamedCall: async (model) =>
      ofChat(
        await client.chat.completions.stream({ model, messages: said("say call"), tools: called }).finalChatCompletion(),
      ),
    response: async (model) => ofResponse(await client.responses.create({ model, input: "say text" })),
    responseParsed: async (model) =>
      ofResponse(
        await client.responses.parse({
          model,
          input: "say city",
          text: { format: parseable({ type: "json_schema", ...schema }) },
        }),
      ),
    responseStreamed: async (model) =>
      ofResponse(await client.responses.stream({ model, input: "say text" }).finalResponse()),
    responseStreamedCall: async (model) =>
      ofResponse(
        await client.responses
          .stream({ model, input: "say call", tools: [{ type: "function", ...called[0].function }] })
          .finalResponse(),
      ),
  };
  const told = {};
  for (const name of JSON.parse(model)) {
    told[name] = {};
    for (const [what, ask] of Object.entries(all)) {
      try {
        told[name][what] = await ask(name);
      } catch (error) {
        told[name][what] = String(error);
      }
    }
  }
  return told;
}

const calls = {
  everyKind,
  plain: () => client.chat.completions.create(ask),
  stream: async () => collect(await client.chat.completions.create({ ...ask, stream: true })),
  streamUsage: async () =>
    collect(
      await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }),
    ),
  helper: () => client.chat.completions.stream(ask).finalChatCompletion(),
  tool: () => client.chat.completions.create({ ...ask, tools, tool_choice: "required" }),
  toolHelper: () =>
    client.chat.completions.stream({ ...ask, tools, tool_choice: "required" }).finalChatCompletion(),
  embedding: async () => {
    const input = "one two three";
    const packed = await client.embeddings.create({ model, input });
    const floats = await client.embeddings.create({ model, input, encoding_format: "float" });
    return [packed.data[0].embedding, floats.data[0].embedding];
  },
  models: async () => (await collect(client.models.list())).map((found) => found.id),
  failure: () => failure(client.chat.completions.create(ask)),
  brokenStream: () =>
    failure((async () => collect(await client.chat.completions.create({ ...ask, stream: true })))()),
  abort: async () => {
    const stream = await client.chat.completions.create({ ...ask, stream: true });
    let seen = 0;
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) seen += 1;
      if (seen === 3) stream.controller.abort();
    }
    return seen;
  },
  response: () => client.responses.create({ model, input: messages[0].content, user }),
  responseHelper: () => client.responses.stream({ model, input: messages[0].content, user }).finalResponse(),
  responseTool: () =>
    client.responses
      .stream({
        model,
        input: messages[0].content,
        tools: [{ type: "function", strict: true, ...tools[0].function }],
        tool_choice: "required",
      })
      .finalResponse(),
  responseParsed: () =>
    client.responses.parse({
      model,
      input: messages[0].content,
      text: {
        format: {
          type: "json_schema",
          name: "city",
          strict: true,
          schema: tools[0].function.parameters,
          $brand: "auto-parseable-response-format",
          $parseRaw: JSON.parse,
        },
      },
    }),
  brokenResponse: () => failure(client.responses.stream({ model, input: messages[0].content }).finalResponse()),
  completion: () => client.completions.create({ model, prompt: messages[0].content }),
  short: () => client.chat.completions.create({ ...ask, max_tokens: 12 }),
  shortStream: async () =>
    collect(
      await client.chat.completions.create({
        ...ask,
        max_tokens: 12,
        stream: true,
        stream_options: { include_usage: true },
      }),
    ),
};

console.log(JSON.stringify(await calls[process.argv[2]]()));
