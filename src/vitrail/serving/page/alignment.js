// Weights between two texts, or of a text on itself: light up the sources of a token, in every layer and head.
import { themed } from "./colours.js";
import { canvasOf, el, labelled, percent, select, visible } from "./dom.js";
import { largestOf } from "./maps.js";
import { t } from "./strings.js";

// `area` is the prefix of the texts: translate, or tokens.
export function alignment({ layers, heads, maps, ...tokens }, context, area) {
  // A token of spaces alone would be a button without a name.
  const [source, target] = [tokens.source, tokens.target].map((all) => all.map((token) => (token.trim() ? token : visible(token))));
  const bytes = Uint8Array.from(atob(maps), (one) => one.charCodeAt(0)), [n, m] = [target.length, source.length];
  const state = { layer: -1, head: -1, row: 0 };
  // Mean over the chosen layers and heads: row of weights of one target token.
  const row = (token) => {
    const out = new Float32Array(m);
    let count = 0;
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < heads; head++) {
        if ((state.layer >= 0 && layer !== state.layer) || (state.head >= 0 && head !== state.head)) continue;
        count++;
        for (let j = 0; j < m; j++) out[j] += bytes[((layer * heads + head) * n + token) * m + j] / 255;
      }
    return out.map((value) => value / count);
  };
  const sources = source.map((token) => el("span", { class: "token" }, token));
  const reading = el("p", { class: "reading", "aria-live": "polite" });
  const targets = target.map((token, i) => el("button", { type: "button", class: "token", onfocus: () => light(i), onpointerenter: () => light(i), onclick: () => light(i) }, token));
  const room = 12 + Math.max(...[...source, ...target].map((token) => token.length)) * 8; // of the names of rows and columns
  const matrix = canvasOf(room + m * 18, room + n * 18, { role: "img", "aria-label": t(`${area}.matrix`), class: "matrix" });
  const light = (i) => {
    state.row = i;
    const weights = row(i), best = largestOf(weights);
    sources.forEach((node, j) => node.style.setProperty("--strength", `${Math.round(75 * weights[j])}%`));
    targets.forEach((node, k) => node.classList.toggle("lit", k === i));
    reading.textContent = t(`${area}.from`, { target: target[i], source: source[best], percent: percent(weights[best]) });
  };
  const draw = () => {
    const pen = matrix.getContext("2d");
    pen.clearRect(0, 0, matrix.width, matrix.height);
    pen.font = "13px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.fillStyle = themed("--ink");
    pen.textAlign = "right";
    target.forEach((token, i) => pen.fillText(token.trim(), room - 5, room + i * 18 + 9));
    pen.textAlign = "left";
    source.forEach((token, j) => {
      pen.save();
      pen.translate(room + j * 18 + 9, room - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillText(token.trim(), 0, 0);
      pen.restore();
    });
    for (let i = 0; i < n; i++) row(i).forEach((value, j) => {
      pen.globalAlpha = 1;
      pen.fillStyle = themed("--track");
      pen.fillRect(room + j * 18, room + i * 18, 17, 17);
      pen.globalAlpha = Math.min(1, value);
      pen.fillStyle = themed("--a");
      pen.fillRect(room + j * 18, room + i * 18, 17, 17);
    });
    light(state.row);
  };
  const controls = el("div", { class: "controls" });
  for (const [name, count] of [["layer", layers], ["head", heads]]) {
    const options = [["-1", t("tokens.mean")], ...Array.from({ length: count }, (_, i) => [String(i), String(i + 1)])];
    labelled(controls, t(name === "layer" ? "attention.layer" : "attention.head"), select(options, "-1", (value) => { state[name] = Number(value); draw(); }));
  }
  matrix.addEventListener("pointermove", (event) => light(Math.max(0, Math.min(n - 1, Math.floor((event.clientY - matrix.getBoundingClientRect().top - room) / 18)))));
  context.redraw.push(draw);
  const line = (name, nodes) => el("div", { class: "tokens" }, el("p", { class: "caption" }, name), el("p", { class: "row" }, ...nodes));
  const node = el("div", {}, el("h3", {}, t(`${area}.alignment`)), line(t(`${area}.source`), sources), line(t(`${area}.target`), targets),
    reading, el("p", { class: "caption" }, t(`${area}.help`)), controls, el("div", { class: "scroll" }, matrix), el("p", { class: "caption" }, t(`${area}.matrix`)));
  draw();
  return node;
}
