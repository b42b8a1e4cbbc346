// The restored image over the given one, with a slider between them; completions of an image.
import { predict } from "./api.js";
import { canvasOf, el, labelled, percent, slider } from "./dom.js";
import { loaded } from "./picture.js";
import { t } from "./strings.js";

export async function restore(context) {
  const extra = { images: true, draw: false };
  const answer = await predict(context.model, context.input, context.options, context.signal, extra);
  const { width, height, scale, tiles, images, notes = [] } = answer.result;
  const after = el("img", { src: images.restored, alt: t("restore.alt.after", { width, height }), class: "after", draggable: "false" });
  const before = canvasOf(width, height, { role: "img", "aria-label": t("restore.alt.before"), class: "before" });
  const pen = before.getContext("2d");
  pen.imageSmoothingEnabled = false; // the pixels as they were given
  pen.drawImage(context.input.picture || (await loaded(images.restored)), 0, 0, width, height);
  const line = el("div", { class: "line", "aria-hidden": "true" });
  const frame = el("div", { class: "compare" }, after, before, line,
    el("span", { class: "tag left", "aria-hidden": "true" }, t("restore.before")), el("span", { class: "tag right", "aria-hidden": "true" }, t("restore.after")));
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `${Math.max(320, Math.min(900, width))}px`;
  const move = (share) => {
    before.style.clipPath = `inset(0 ${100 * (1 - share)}% 0 0)`;
    line.style.left = `${100 * share}%`;
  };
  const controls = el("div", { class: "controls" });
  const control = labelled(controls, t("restore.slider"), slider(0, 1, 0.01, 0.5, (share) => percent(1 - share), move));
  const drag = (event) => {
    const box = frame.getBoundingClientRect();
    control.value = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    control.dispatchEvent(new Event("input"));
  };
  frame.addEventListener("pointerdown", (event) => { frame.setPointerCapture(event.pointerId); drag(event); });
  frame.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
  const save = el("a", { href: images.restored, download: "restored.png", class: "button" }, t("restore.save"));
  context.body.append(frame, controls, el("p", { class: "caption" }, [t("restore.size", { width, height, scale, tiles }), ...notes].join(" · ")), el("p", {}, save));
  move(0.5);
  return answer;
}

export async function complete(context) {
  const answer = await predict(context.model, context.input, context.options, context.signal, { images: true, draw: false });
  const list = el("ul", { class: "tiles", "aria-label": t("complete.title") });
  let number = 0;
  for (const [name, url] of Object.entries(answer.result.images || {})) {
    const text = name.startsWith("sample") ? t("complete.sample", { number: ++number }) : t("complete.given");
    list.append(el("li", {}, el("img", { src: url, alt: text, class: "pixels" }), el("p", { class: "caption" }, text)));
  }
  context.body.append(list);
  return answer;
}
