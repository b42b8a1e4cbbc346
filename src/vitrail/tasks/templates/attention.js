"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const choice = {text: 0, layer: -1, head: -1};
for (const one of data) one.levels = Uint8Array.from(atob(one.maps), c => c.charCodeAt(0));

// Mean of some maps of a text, row by row; -1 stands for all layers or heads.
function chosen(one, layer, head) {
  const N = one.target.length, M = one.source.length, sum = new Float64Array(N * M);
  let count = 0;
  for (let l = 0; l < one.layers; l++) for (let h = 0; h < one.heads; h++) {
    if ((layer >= 0 && l !== layer) || (head >= 0 && h !== head)) continue;
    const start = (l * one.heads + h) * N * M;
    for (let i = 0; i < N * M; i++) sum[i] += one.levels[start + i];
    count++;
  }
  return sum.map(value => value / (255 * count));
}
function options(select, names) {
  select.replaceChildren(...names.map(([value, text]) => new Option(text, value)));
}
const numbered = (name, count) => [[-1, "mean of all"], ...Array.from({length: count}, (_, i) => [i, `${name} ${i + 1}`])];
function cell(tag, text, scope) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (scope) made.scope = scope;
  return made;
}
function draw() {
  const one = data[choice.text], map = chosen(one, choice.layer, choice.head), M = one.source.length;
  $("caption").textContent = one.caption;
  const head = document.createElement("tr");
  head.append(document.createElement("td"), ...one.source.map(token => cell("th", token, "col")));
  const rows = one.target.map((token, n) => {
    const line = document.createElement("tr");
    line.append(cell("th", token, "row"), ...one.source.map((from, m) => {
      const made = document.createElement("td"), value = map[n * M + m];
      made.style.background = `rgba(60, 120, 210, ${value})`;
      made.title = `${token} from ${from}: ${(100 * value).toFixed(1)}%`;
      made.onmouseenter = () => { $("cell").textContent = made.title; };
      return made;
    }));
    return line;
  });
  const top = document.createElement("thead"), body = document.createElement("tbody");
  top.append(head); body.append(...rows);
  $("map").replaceChildren(top, body);
}
function small(one, l, h) {
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  canvas.width = one.source.length; canvas.height = one.target.length;
  const pen = canvas.getContext("2d"), pixels = pen.createImageData(canvas.width, canvas.height);
  const start = (l * one.heads + h) * canvas.width * canvas.height;
  for (let i = 0; i < canvas.width * canvas.height; i++) pixels.data.set([60, 120, 210, one.levels[start + i]], 4 * i);
  pen.putImageData(pixels, 0, 0);
  button.append(canvas, `layer ${l + 1}, head ${h + 1}`);
  button.setAttribute("aria-pressed", l === choice.layer && h === choice.head);
  button.onclick = () => { Object.assign(choice, {layer: l, head: h}); sync(); };
  return button;
}
function sync() {
  const one = data[choice.text];
  options($("layer"), numbered("layer", one.layers));
  options($("head"), numbered("head", one.heads));
  for (const name of Object.keys(choice)) $(name).value = choice[name];
  $("all").replaceChildren();
  for (let l = 0; l < one.layers; l++) for (let h = 0; h < one.heads; h++) $("all").append(small(one, l, h));
  draw();
}
for (const name of Object.keys(choice)) $(name).onchange = event => { choice[name] = +event.target.value; sync(); };
options($("text"), data.map((one, i) => [i, `${i + 1}: ${one.caption.slice(0, 60)}`]));
sync();
