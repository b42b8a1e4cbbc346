// Heatmaps through all layers: attention rollout of each query, and Grad-CAM of the class.
import { heatmap } from "./api.js";
import { drawHeat } from "./attention_drawing.js";
import { canvasOf, el, percent } from "./dom.js";
import { largestOf, tokenOf } from "./maps.js";
import { loaded } from "./picture.js";
import { t } from "./strings.js";

// Row 0 is that of the answer; those of the tokens of the last grid follow.
export function heatRow(heat, query) {
  const size = heat.grid[0] * heat.grid[1], token = heat.queries && query ? tokenOf(heat.queries, query, heat.image) : -1;
  const row = token + 1, unit = heat.maxima[row] / 255;
  return { token, weights: Float32Array.from(heat.levels.subarray(row * size, (row + 1) * size), (level) => level * unit) };
}

export function readHeat(heat, row, nameOf) {
  const place = (cell, columns) => ({ row: Math.floor(cell / columns) + 1, column: (cell % columns) + 1 });
  const best = largestOf(row.weights), values = { ...place(best, heat.grid[1]), percent: percent(row.weights[best]) };
  if (heat.kind === "gradcam") return t("heat.reading.gradcam", values);
  if (row.token < 0) return t("heat.reading.answer", values);
  const cell = row.token - heat.queries.prefix;
  if (cell < 0) return t("heat.reading.token", { ...values, token: nameOf(row.token) });
  const from = place(cell, heat.queries.grid[1]);
  return t("heat.reading.cell", { ...values, fromRow: from.row, fromColumn: from.column });
}

// The heatmap of a model without softmax attention.
export async function heatAlone(model, input, side, signal) {
  const heat = await heatmap(model, input, "gradcam", signal), [height, width] = heat.image, factor = side / Math.max(height, width);
  const row = heatRow(heat, null), text = readHeat(heat, row);
  const canvas = canvasOf(Math.round(width * factor), Math.round(height * factor), { role: "img", "aria-label": `${t("heat.gradcam")}. ${text}`, class: "map" });
  drawHeat(canvas, await loaded(heat.seen), heat, row);
  return [canvas, el("p", { class: "reading" }, text), el("p", { class: "caption" }, t("heat.note.gradcam"))];
}
