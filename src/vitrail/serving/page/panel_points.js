// A cloud that turns: orthographic projection, nearer points darker, picks and parts in colours.
import { view } from "./api.js";
import { bars } from "./bars.js";
import { boxColour, css, themed } from "./colours.js";
import { canvasOf, el, labelled, percent } from "./dom.js";
import { topRows } from "./panel_classes.js";
import { t } from "./strings.js";

const SIDE = 420;

export async function points(context) {
  const answer = await view(context.model, context.input, context.options, context.signal), { result } = answer;
  context.body.append(el("p", { class: "answer" }, result.label), bars(topRows(result), t("classes.labels", { model: context.model.name })), cloud(answer.view, context));
  if (answer.view.picks?.length) context.body.append(el("p", { class: "caption" }, t("points.picks")));
  return answer;
}

export async function parts(context) {
  const answer = await view(context.model, context.input, context.options, context.signal), { names } = answer.view;
  const list = el("ul", { class: "legend", "aria-label": t("points.parts") });
  names.forEach((name, i) => {
    const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = css(boxColour(i));
    list.append(el("li", {}, el("span", { class: "entry" }, swatch, el("span", { class: "name" }, name), el("span", { class: "value" }, percent(answer.result.shares[name] || 0)))));
  });
  context.body.append(cloud(answer.view, context), list);
  return answer;
}

function cloud(shown, context) {
  const count = shown.points.length / 3;
  const canvas = canvasOf(SIDE, SIDE, { tabindex: "0", role: "application", class: "cloud", "aria-label": t("points.canvas", { count }) });
  const state = { turn: 0.6, tilt: 0.45, spin: false };
  const draw = () => drawCloud(canvas, shown, state);
  const move = (right, up) => {
    state.turn += right;
    state.tilt = Math.max(-1.57, Math.min(1.57, state.tilt + up));
    draw();
  };
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(event.movementX / 80, event.movementY / 80); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (step) { event.preventDefault(); move(...step); }
  });
  const controls = el("div", { class: "controls" });
  const spin = labelled(controls, t("points.turning"), el("input", { type: "checkbox", onchange: () => { state.spin = spin.checked; frame(); } }), { class: "field check" });
  const frame = () => {
    if (!state.spin || !canvas.isConnected) return;
    move(0.012, 0);
    requestAnimationFrame(frame);
  };
  context.redraw.push(draw); // another theme
  draw();
  return el("div", { class: "clouds" }, el("h3", {}, t("points.title")), canvas, el("p", { class: "caption" }, t("points.help")), controls);
}

function drawCloud(canvas, { points: numbers, parts: labels, picks = [] }, { turn, tilt }) {
  const pen = canvas.getContext("2d"), dark = themed("--dark") === "1", count = numbers.length / 3;
  pen.fillStyle = themed("--card");
  pen.fillRect(0, 0, SIDE, SIDE);
  const [ct, st, cl, sl] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  const places = Array.from({ length: count }, (_, i) => {
    const x = numbers[3 * i] / 1000, y = numbers[3 * i + 1] / 1000, z = numbers[3 * i + 2] / 1000;
    const right = ct * x - st * y, ahead = st * x + ct * y;
    return [SIDE * (0.5 + 0.46 * right), SIDE * (0.5 - 0.46 * (cl * z + sl * ahead)), sl * z - cl * ahead, i];
  });
  const colours = labels ? [...new Set(labels)].reduce((all, part) => ({ ...all, [part]: css(boxColour(part)) }), {}) : null;
  for (const [x, y, near, i] of places.slice().sort((a, b) => a[2] - b[2])) {
    const depth = (near + 1) / 2, grey = Math.round(dark ? 70 + 175 * depth : 205 - 165 * depth);
    pen.globalAlpha = colours ? 0.35 + 0.65 * Math.max(0, Math.min(1, depth)) : 1;
    pen.fillStyle = colours ? colours[labels[i]] : `rgb(${grey}, ${grey}, ${grey})`;
    pen.fillRect(x - 1.25, y - 1.25, 2.5, 2.5);
  }
  pen.globalAlpha = 1;
  picks.forEach((net, number) => {
    pen.strokeStyle = css(boxColour(number));
    net.forEach((index, rank) => {
      pen.lineWidth = rank ? 1.5 : 3;
      pen.beginPath();
      pen.arc(places[index][0], places[index][1], rank ? 4 : 8, 0, 7);
      pen.stroke();
    });
  });
}
