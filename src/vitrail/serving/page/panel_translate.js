// A translation, and where each of its tokens comes from: cross-attention of every layer and head.
import { alignment } from "./alignment.js";
import { view } from "./api.js";
import { el } from "./dom.js";
import { t } from "./strings.js";

export async function translate(context) {
  const answer = await view(context.model, context.input, context.options, context.signal), { result } = answer;
  context.body.append(el("p", { class: "answer text" }, result.translation));
  if (result.truncated) context.body.append(el("p", { class: "caption" }, t("translate.cut", { count: result.truncated })));
  if (answer.view.target?.length) context.body.append(alignment(answer.view, context, "translate"));
  return answer;
}
