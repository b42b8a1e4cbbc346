// Options of a task as a form, from the ranges that the server states.
import { el, labelled } from "./dom.js";
import { known, t } from "./strings.js";

// Options that the page sets by itself, or that make no sense for one input.
const OWN = new Set(["batch", "precision", "optimize", "labels", "draft", "text", "memory", "metadata", "suffix", "explain"]);

export function settings(model, values, onchange) {
  const form = el("div", { class: "controls" });
  for (const [name, kind] of Object.entries(model.options || {})) {
    if (OWN.has(name)) continue;
    const text = known(`option.${name}`) ? t(`option.${name}`) : name.replaceAll("_", " ");
    const control = controlOf(kind, values[name] ?? kind.default);
    if (!control) continue;
    labelled(form, text, control, kind.type === "boolean" ? { class: "field check" } : {});
    control.addEventListener("change", () => {
      if (!control.reportValidity()) return;
      const value = kind.type === "boolean" ? control.checked : control.tagName === "SELECT" ? control.value : control.value === "" ? undefined : Number(control.value);
      if (value === undefined || value === kind.default) delete values[name];
      else values[name] = value;
      onchange();
    });
  }
  return form;
}

function controlOf(kind, value) {
  if (kind.enum) {
    const made = el("select", {}, ...kind.enum.map((one) => el("option", { value: one }, String(one))));
    made.value = value;
    return made;
  }
  if (kind.type === "boolean") {
    const made = el("input", { type: "checkbox" });
    made.checked = Boolean(value);
    return made;
  }
  if (kind.type !== "integer" && kind.type !== "number") return null;
  const made = el("input", { type: "number", min: kind.minimum, max: kind.maximum, step: kind.type === "integer" ? 1 : "any", inputmode: "decimal" });
  made.value = value ?? "";
  return made;
}
