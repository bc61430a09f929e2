/* The request of the playground as a program: Python, Node and curl. */

function python(value, indent) {
  const pad = " ".repeat(indent + 4);
  const end = " ".repeat(indent);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((item) => `${pad}${python(item, indent + 4)},\n`).join("")}${end}]`;
  }
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if (!entries.length) return "{}";
    const lines = entries.map(([name, item]) => `${pad}${JSON.stringify(name)}: ${python(item, indent + 4)},\n`);
    return `{\n${lines.join("")}${end}}`;
  }
  // A JSON string or number is one of Python's too.
  return JSON.stringify(value);
}

function pythonCode(body, base) {
  const named = Object.entries(body).map(([name, value]) => `    ${name}=${python(value, 4)},\n`);
  const shown = body.stream
    ? `for chunk in answer:\n    for choice in chunk.choices:\n        print(choice.delta.content or "", end="", flush=True)`
    : `print(answer.choices[0].message.content)`;
  return [
    `from openai import OpenAI\n`,
    `client = OpenAI(base_url=${JSON.stringify(base)}, api_key="WEIR_API_KEY")`,
    `answer = client.chat.completions.create(\n${named.join("")})`,
    shown,
  ].join("\n");
}

function nodeCode(body, base) {
  const shown = body.stream
    ? `for await (const chunk of answer) {\n  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n}`
    : `console.log(answer.choices[0].message.content);`;
  return [
    `import OpenAI from "openai";\n`,
    `const client = new OpenAI({ baseURL: ${JSON.stringify(base)}, apiKey: "WEIR_API_KEY" });`,
    `const answer = await client.chat.completions.create(${JSON.stringify(body, null, 2)});`,
    shown,
  ].join("\n");
}

function curlCode(body, base) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
  return [
    `curl ${body.stream ? "-N " : ""}${base}/chat/completions \\`,
    `  -H "Authorization: Bearer WEIR_API_KEY" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d '${quoted}'`,
  ].join("\n");
}

/* The program by the name of its language, for a request `body` to the API at `base`. */
export function codeOf(body, base) {
  return { python: pythonCode(body, base), node: nodeCode(body, base), curl: curlCode(body, base) };
}
