// A text that streams: each token with its probability, and what else was likely.
import { stream } from "./api.js";
import { bars } from "./bars.js";
import { announce, el, percent, visible } from "./dom.js";
import { t } from "./strings.js";

export async function language(context) {
  const { model, input, options } = context, stopped = new AbortController();
  const given = el("span", { class: "given" }, input.text);
  // One stop of the tab key for the whole text; arrow keys move between the tokens.
  const text = el("p", { class: "stream", role: "group", tabindex: "0", "aria-label": t("language.text") }, given);
  const state = el("p", { class: "reading", role: "status" }, t("language.writing"));
  const stop = el("button", { type: "button", onclick: () => stopped.abort() }, t("input.stop"));
  const detail = el("div", { class: "alternatives", "aria-live": "polite" });
  context.body.append(text, state, stop, el("p", { class: "caption" }, t("language.help")), detail);
  context.signal.addEventListener("abort", () => stopped.abort());
  const pieces = [], choose = inspector(text, pieces, detail);
  let seconds = 0, count = 0;
  try {
    for await (const event of stream(model, input.text, options, stopped.signal)) {
      if (event.done) { seconds = event.seconds; count = event.pieces; break; }
      const node = el("span", { class: "piece" }, event.text);
      if (event.probability !== undefined) node.style.setProperty("--strength", `${Math.round(45 * event.probability)}%`);
      const number = pieces.push({ ...event, node }) - 1;
      node.addEventListener("pointerenter", () => choose(number));
      node.addEventListener("click", () => choose(number));
      text.append(node);
    }
    state.textContent = t("language.done", { count, seconds: seconds.toFixed(1), rate: Math.round(count / Math.max(seconds, 1e-3)) });
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    if (context.signal.aborted) throw error;
    state.textContent = t("language.stopped", { count: pieces.length });
  } finally {
    stop.remove();
  }
  announce(`${state.textContent} ${pieces.map((piece) => piece.text).join("").slice(0, 400)}`);
  return { timing: null };
}

function inspector(text, pieces, detail) {
  let now = -1;
  const choose = (number) => {
    if (!pieces[number]) return;
    pieces[now]?.node.classList.remove("lit");
    now = number;
    const { node, probability, alternatives = [] } = pieces[now];
    node.classList.add("lit");
    if (probability === undefined) return;
    const name = t("language.chosen", { token: visible(pieces[now].text), percent: percent(probability) });
    detail.replaceChildren(el("p", {}, name), bars(alternatives.map(([token, share]) => ({ name: visible(token), share })), t("language.alternatives")));
  };
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(pieces.length - 1, now + step)));
  });
  return choose;
}
