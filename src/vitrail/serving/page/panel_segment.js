// Masks over the image: opacity, and a legend that switches classes.
import { predict } from "./api.js";
import { css, maskColour } from "./colours.js";
import { canvasOf, el, labelled, percent, slider } from "./dom.js";
import { loaded } from "./picture.js";
import { t } from "./strings.js";

export async function segment(context) {
  const extra = { images: false, draw: !context.input.picture };
  const answer = await predict(context.model, context.input, context.options, context.signal, extra);
  const result = answer.result, names = new Map(result.classes.map((one) => [one.id, one.label]));
  const picture = context.input.picture || (await loaded(result.drawing));
  const state = { opacity: 0.55, off: new Set() };
  const mask = maskOf(result);
  const factor = Math.min(1, 900 / Math.max(result.width, result.height));
  const canvas = canvasOf(Math.round(result.width * factor), Math.round(result.height * factor), {
    role: "img", class: "picture", "aria-label": t("segment.canvas", { classes: [...names.values()].join(", ") }),
  });
  const here = el("p", { class: "reading" });
  const draw = () => {
    const pen = canvas.getContext("2d");
    pen.globalAlpha = 1;
    pen.imageSmoothingEnabled = true;
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    pen.globalAlpha = state.opacity;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(mask.paint(state.off), 0, 0, canvas.width, canvas.height);
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * result.width), y = Math.floor(((event.clientY - box.top) / box.height) * result.height);
    here.textContent = t("segment.at", { label: names.get(mask.numbers[y * result.width + x]) ?? "" });
  });
  const controls = el("div", { class: "controls" });
  labelled(controls, t("segment.opacity"), slider(0, 1, 0.05, state.opacity, percent, (value) => { state.opacity = value; draw(); }));
  context.body.append(canvas, here, controls, legend(result.classes, state, draw));
  draw();
  return answer;
}

function legend(classes, state, draw) {
  const list = el("ul", { class: "legend", "aria-label": t("segment.legend") });
  for (const { label, id, share } of classes) {
    const box = el("input", { type: "checkbox", checked: true, onchange: () => { state.off[box.checked ? "delete" : "add"](id); draw(); } });
    const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = css(maskColour(id));
    list.append(el("li", {}, el("label", {}, box, swatch, el("span", { class: "name" }, label), el("span", { class: "value" }, percent(share)))));
  }
  return list;
}

// Numbers of the classes from run lengths, row by row, and their painting in the palette.
function maskOf({ width, height, runs }) {
  const numbers = new Int32Array(width * height);
  let at = 0;
  for (const [number, length] of runs) numbers.fill(number, at, (at += length));
  const canvas = canvasOf(width, height), pen = canvas.getContext("2d"), data = pen.createImageData(width, height);
  const words = new Uint32Array(data.data.buffer);
  const paint = (off) => {
    const table = new Map();
    for (let i = 0; i < numbers.length; i++) {
      let word = table.get(numbers[i]);
      if (word === undefined) {
        const [r, g, b] = maskColour(numbers[i]);
        table.set(numbers[i], (word = off.has(numbers[i]) ? 0 : ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0));
      }
      words[i] = word;
    }
    pen.putImageData(data, 0, 0);
    return canvas;
  };
  return { numbers, paint };
}
