// Classes of an image with bars, and its attention.
import { predict } from "./api.js";
import { bars } from "./bars.js";
import { el } from "./dom.js";
import { t } from "./strings.js";

export const topRows = (result) => result.top.map((one) => ({ name: one.label, share: one.probability }));

export async function classes(context) {
  const answer = await predict(context.model, context.input, context.options, context.signal, { draw: false, images: false });
  context.body.append(
    el("p", { class: "answer" }, answer.result.label),
    bars(topRows(answer.result), t("classes.labels", { model: context.model.name })),
  );
  return answer;
}

// All labels above their threshold; there may be none.
export async function labels(context) {
  const answer = await predict(context.model, context.input, context.options, context.signal, { draw: false, images: false });
  const found = answer.result.labels.map((one) => ({ name: one.label, share: one.probability }));
  context.body.append(
    el("p", { class: "answer" }, found.map((one) => one.name).join(", ") || t("labels.none")),
    bars(found, t("classes.labels", { model: context.model.name })),
  );
  return answer;
}
