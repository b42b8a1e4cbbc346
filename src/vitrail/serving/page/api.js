// Requests to the server: token, errors as values of one class, and the binary form of attention maps.
import { t } from "./strings.js";

const KEY = "vitrail-token";
let askToken = null; // a function that resolves to a token

export const onToken = (ask) => { askToken = ask; };
const token = () => sessionStorage.getItem(KEY) || "";

class ApiError extends Error {
  constructor(status, code, message, requestId) {
    super(message);
    Object.assign(this, { status, code, requestId });
  }
}

async function send(path, init, again = true) {
  const headers = new Headers(init.headers);
  if (token()) headers.set("Authorization", `Bearer ${token()}`);
  let answer;
  try {
    answer = await fetch(path, { ...init, headers, redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "offline", t("problem.offline"), "");
  }
  if (answer.status === 401 && again && askToken) {
    sessionStorage.setItem(KEY, await askToken(Boolean(token())));
    return send(path, init, true);
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}

async function failure(answer) {
  let error = {};
  try { error = (await answer.json()).error || {}; } catch { /* not JSON: the status says enough */ }
  const seconds = Number(answer.headers.get("Retry-After"));
  const text = answer.status === 429 && seconds
    ? t("problem.busy", { seconds })
    : error.message || t("problem.odd", { status: answer.status });
  return new ApiError(answer.status, error.code || "", text, error.request_id || answer.headers.get("X-Request-ID") || "");
}

export const getJson = async (path, signal) => (await send(path, { signal })).json();

// A cookie for the reports, if there is a token at all.
export async function openSession() {
  if (token()) await send("/runs/session", { method: "POST" });
}

// A blob goes as it is, a text as JSON.
function body(input, options) {
  const form = new FormData();
  form.append("input", input.kind === "text" ? input.text : new File([input.blob], input.file || "input"));
  form.append("options", JSON.stringify(options));
  return form;
}

const address = (model, verb) => `/v1/models/${encodeURIComponent(model.name)}/${verb}`;

export async function predict(model, input, options, signal, extra = {}) {
  const form = body(input, options);
  for (const [name, value] of Object.entries(extra)) form.append(name, String(value));
  return (await send(address(model, "predict"), { method: "POST", body: form, signal })).json();
}

// The prediction with what its panel draws beside it: points, alignment.
export async function view(model, input, options, signal) {
  return (await send(address(model, "view"), { method: "POST", body: body(input, options), signal })).json();
}

export async function attention(model, input, choice, signal) {
  const answer = await send(address(model, "attention"), { method: "POST", body: body(input, choice), signal });
  return decodeMaps(await answer.arrayBuffer());
}

// Rollout or Grad-CAM; its rows are bytes.
export async function heatmap(model, input, kind, signal) {
  const answer = await (await send(address(model, "heatmap"), { method: "POST", body: body(input, { kind }), signal })).json();
  return { ...answer, levels: Uint8Array.from(atob(answer.levels), (one) => one.charCodeAt(0)) };
}

export const card = (model) => getJson(address(model, "card"));

// Address of the page that walks an input through the model.
export async function trace(model, input) {
  await openSession();
  return (await (await send(address(model, "trace"), { method: "POST", body: body(input, {}) })).json()).page;
}

// Yields the events of a stream; leaving the loop closes the connection, which stops the server.
export async function* stream(model, text, options, signal) {
  const headers = { "Content-Type": "application/json" };
  const content = JSON.stringify({ input: text, options });
  const answer = await send(address(model, "stream"), { method: "POST", headers, body: content, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const events = held.split("\n\n");
      held = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
        if (!data) continue;
        const found = JSON.parse(data);
        if (found.error) throw new ApiError(answer.status, found.error.code, found.error.message, found.error.request_id);
        yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The layout is described in `vitrail.explain.served_maps`; parts are copied where they are not aligned.
function decodeMaps(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const take = (Kind, count) => {
    const part = new Kind(buffer, at, count);
    at += part.byteLength;
    return part;
  };
  const layers = header.sent.map((sent) => {
    const [groups, heads, n, m] = sent.shape;
    const slots = take(Int32Array, groups * n), keys = take(Int32Array, groups * m);
    const maxima = take(Float32Array, groups * heads * n), levels = take(Int8Array, groups * heads * n * m);
    at += (4 - (at % 4)) % 4;
    return { ...sent, groups, heads, n, m, slots, keys, maxima, levels };
  });
  return { header, layers };
}
