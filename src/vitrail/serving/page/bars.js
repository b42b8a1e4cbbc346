// A list of names with bars: classes, candidates for a mask, next tokens.
import { el, percent } from "./dom.js";

export function bars(rows, label) {
  const list = el("ol", { class: "bars", "aria-label": label });
  for (const { name, share } of rows) {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${100 * share}%`;
    list.append(
      el("li", {}, el("span", { class: "name", title: name }, name), el("span", { class: "track", "aria-hidden": "true" }, fill), el("span", { class: "value" }, percent(share))),
    );
  }
  return list;
}
