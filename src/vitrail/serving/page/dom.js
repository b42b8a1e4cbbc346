// Elements without templates: text is always a text node, so nothing that a server sends can become markup.
import { t } from "./strings.js";

let count = 0;
const unique = (name) => `${name}-${++count}`;

// el("button", { class: "plain", onclick: f, "aria-pressed": "true" }, "text", child)
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const hidden = (text) => el("span", { class: "hidden" }, text);

// A labelled control: returns the control, and appends label and control to `parent`.
export function labelled(parent, text, control, props = {}) {
  control.id ||= unique("field");
  parent.append(el("div", { class: "field", ...props }, el("label", { for: control.id }, text), control));
  return control;
}

export function select(options, chosen, onchange) {
  const made = el("select", { onchange: () => onchange(made.value) });
  for (const [value, text] of options) made.append(el("option", { value }, text));
  made.value = chosen;
  return made;
}

export function slider(min, max, step, value, text, oninput) {
  const made = el("input", { type: "range", min, max, step });
  made.value = value;
  const tell = () => made.setAttribute("aria-valuetext", text(Number(made.value)));
  made.addEventListener("input", () => { tell(); oninput(Number(made.value)); });
  tell();
  return made;
}

// Text of static elements: data-t is the text, data-t-ATTRIBUTE an attribute.
export function fillTexts(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
}

export const $ = (id) => document.getElementById(id);

export const percent = (share) =>
  share >= 0.9995 || share === 0 ? `${Math.round(100 * share)}%` : share < 0.001 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`;

// Spaces and line ends as signs.
export const visible = (text) => text.replace(/\n/g, "⏎").replace(/\s/g, "␣") || "·";

export const canvasOf = (width, height, props = {}) => el("canvas", { width, height, ...props });

// Live region: polite, and emptied first so that the same text is announced again.
export function announce(text) {
  const region = $("status");
  region.textContent = "";
  requestAnimationFrame(() => { region.textContent = text; });
}
