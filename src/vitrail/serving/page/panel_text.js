// Classes of a text with the words that decided, and words for masks.
import { alignment } from "./alignment.js";
import { predict, view } from "./api.js";
import { bars } from "./bars.js";
import { el, hidden } from "./dom.js";
import { topRows } from "./panel_classes.js";
import { t } from "./strings.js";

export async function sentiment(context) {
  const options = { explain: true, ...context.options };
  const answer = await view(context.model, context.input, options, context.signal), { result } = answer;
  context.body.append(el("p", { class: "answer" }, result.label), bars(topRows(result), t("classes.labels", { model: context.model.name })));
  if (result.words) {
    context.body.append(el("h3", {}, t("sentiment.title")), words(result.words), el("p", { class: "caption" }, t("sentiment.note", { label: result.label })));
  }
  if (answer.view.target?.length) context.body.append(alignment(answer.view, context, "tokens"));
  return answer;
}

// Words are marked by colour and by the kind of their line, those with at least a tenth of the largest effect.
function words(list) {
  const largest = Math.max(1e-9, ...list.map(([, effect]) => Math.abs(effect ?? 0)));
  const text = el("p", { class: "words" });
  for (const [word, effect] of list) {
    if (effect === null || Math.abs(effect) < largest / 10) {
      text.append(`${word} `);
      continue;
    }
    const amount = `${effect > 0 ? "+" : "−"}${Math.abs(effect).toFixed(1)}`;
    const mark = el("mark", { class: effect > 0 ? "for" : "against" }, word, hidden(` (${t(effect > 0 ? "sentiment.for" : "sentiment.against", { effect: amount })})`), el("small", { "aria-hidden": "true" }, amount));
    mark.style.setProperty("--strength", `${Math.round(12 + 38 * (Math.abs(effect) / largest))}%`);
    text.append(mark, " ");
  }
  return text;
}

export async function masks(context) {
  const answer = await view(context.model, context.input, context.options, context.signal);
  const found = answer.result.masks || answer.result.words || [];
  context.body.append(el("h3", {}, t("masks.title")));
  found.forEach((list, i) => {
    const name = t("masks.number", { number: i + 1 });
    context.body.append(el("h4", {}, name), bars(list.map(([word, share]) => ({ name: word, share })), name));
  });
  if (answer.view.target?.length) context.body.append(alignment(answer.view, context, "tokens"));
  return answer;
}

// Any other task: its answer as it is.
export async function other(context) {
  const answer = await predict(context.model, context.input, context.options, context.signal, context.input.kind === "text" ? {} : { draw: true });
  const { drawing, ...rest } = answer.result;
  if (drawing) context.body.append(el("img", { src: drawing, alt: t("other.title"), class: "picture" }));
  context.body.append(el("pre", { tabindex: "0" }, JSON.stringify(rest, null, 2).slice(0, 20000)));
  return answer;
}
