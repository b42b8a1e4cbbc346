// Boxes over the image: a slider of scores, and a list of the objects.
import { predict } from "./api.js";
import { boxColour, css, ink } from "./colours.js";
import { canvasOf, el, labelled, percent, slider } from "./dom.js";
import { loaded } from "./picture.js";
import { t } from "./strings.js";

export async function detect(context) {
  const extra = { images: true, draw: !context.input.picture };
  // All objects that are not noise: the slider chooses among them without asking again.
  const answer = await predict(context.model, context.input, { threshold: 0.05, ...context.options }, context.signal, extra);
  const { width, height, objects, images, drawing } = answer.result;
  const picture = context.input.picture || (await loaded(drawing));
  const masks = images?.masks ? await masksOf(images.masks, width, height) : null;
  const longest = Math.max(width, height), factor = Math.max(480, Math.min(900, longest)) / longest; // names must fit
  const state = { least: objects.length ? Math.min(0.5, objects[0].score) : 0.5, lit: -1 };
  const canvas = canvasOf(Math.round(width * factor), Math.round(height * factor), { role: "img", class: "picture" });
  const count = el("p", { class: "reading", role: "status" }), list = el("ul", { class: "legend", "aria-label": t("detect.legend") });
  const draw = () => {
    const pen = canvas.getContext("2d"), shown = objects.filter((one) => one.score >= state.least);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    if (masks) pen.drawImage(masks(objects, state.least), 0, 0, canvas.width, canvas.height);
    shown.toReversed().forEach((one) => drawBox(pen, one, factor, false)); // the best on top
    if (shown.includes(objects[state.lit])) drawBox(pen, objects[state.lit], factor, true);
    canvas.setAttribute("aria-label", t("detect.canvas", { count: shown.length }));
    count.textContent = objects.length ? t("detect.count", { shown: shown.length, count: objects.length, percent: percent(state.least) }) : t("detect.nothing");
    [...list.children].forEach((item, i) => { item.hidden = objects[i].score < state.least; });
  };
  objects.forEach((one, i) => {
    const swatch = el("span", { class: "swatch", "aria-hidden": "true" }), light = (on) => () => { state.lit = on ? i : -1; draw(); };
    swatch.style.background = css(boxColour(one.index));
    list.append(el("li", {}, el("button", { type: "button", class: "object", onfocus: light(true), onblur: light(false), onpointerenter: light(true), onpointerleave: light(false) },
      swatch, el("span", { class: "name" }, one.label), el("span", { class: "value" }, percent(one.score)))));
  });
  const controls = el("div", { class: "controls" });
  labelled(controls, t("detect.score"), slider(0, 1, 0.01, state.least, percent, (value) => { state.least = value; draw(); }));
  context.body.append(canvas, controls, count, list);
  draw();
  return answer;
}

function drawBox(pen, { label, score, index, box }, factor, lit) {
  const colour = boxColour(index), [left, top, right, bottom] = box.map((value) => value * factor), text = `${label} ${percent(score)}`;
  pen.lineWidth = lit ? 4 : 2;
  pen.strokeStyle = css(colour);
  pen.strokeRect(left, top, right - left, bottom - top);
  if (lit) { pen.fillStyle = css(colour, 0.25); pen.fillRect(left, top, right - left, bottom - top); }
  pen.font = "600 13px system-ui, sans-serif";
  const wide = pen.measureText(text).width + 8, y = Math.max(0, top - 18), x = Math.max(0, Math.min(left - 1, pen.canvas.width - wide));
  pen.fillStyle = css(colour);
  pen.fillRect(x, y, wide, 18);
  pen.fillStyle = ink(colour);
  pen.textBaseline = "middle";
  pen.fillText(text, x + 4, y + 9);
}

// Masks from an image whose grey value is the number of the object, 0 none.
async function masksOf(url, width, height) {
  const canvas = canvasOf(width, height), pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(await loaded(url), 0, 0, width, height);
  const data = pen.getImageData(0, 0, width, height), numbers = data.data.filter((_, i) => i % 4 === 0);
  return (objects, least) => {
    data.data.fill(0);
    numbers.forEach((number, i) => {
      const one = objects[number - 1];
      if (one && one.score >= least) data.data.set([...boxColour(one.index), 115], 4 * i);
    });
    pen.putImageData(data, 0, 0);
    return canvas;
  };
}
