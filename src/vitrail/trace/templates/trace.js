"use strict";
const T = JSON.parse(document.getElementById("trace").textContent);
const byId = (id) => document.getElementById(id);
const state = { frame: 0, head: 0, query: 0, window: 0 };
const KINDS = { f32: Float32Array, i16: Int16Array, i32: Int32Array, u8: Uint8Array };
const unpacked = new Map();
function unpack(p) {
  if (!unpacked.has(p)) {
    const raw = atob(p.data), bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0));
    unpacked.set(p, { shape: p.shape, v: new KINDS[p.type](bytes.buffer) });
  }
  return unpacked.get(p);
}
function el(tag, props = {}, ...kids) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...kids.filter((kid) => kid !== null));
  return node;
}
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const show = (x) => (x === 0 ? "0" : !isFinite(x) ? String(x) : Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5 ? x.toExponential(2) : x.toPrecision(4));
const HOT = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const COLD = [[33, 80, 160], [120, 165, 215], [236, 238, 240], [235, 150, 105], [170, 45, 40]];
function shade(scale, t) {
  const at = Math.min(Math.max(t, 0), 1) * (scale.length - 1), i = Math.min(Math.floor(at), scale.length - 2), f = at - i;
  return scale[i].map((a, c) => Math.round(a + (scale[i + 1][c] - a) * f));
}
const PANES = ["#2459a9", "#d99a1e", "#b3344a", "#2d8a66", "#7a4fa3", "#2a8fa8", "#a8652a", "#6b7c2f", "#5a6472"];
const photo = new Image();

function board(rows, columns, draw, most = 540) {
  const canvas = el("canvas"), ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.min(most, Math.max(byId("frame").clientWidth, 280)), unit = width / columns;
  canvas.width = Math.round(width * ratio); canvas.height = Math.max(1, Math.round(unit * rows * ratio));
  canvas.style.width = width + "px"; canvas.style.aspectRatio = canvas.width + " / " + canvas.height;
  const c = canvas.getContext("2d");
  c.scale(canvas.width / columns, canvas.width / columns);
  canvas.redraw = () => { c.clearRect(0, 0, columns, rows); draw(c, canvas.width / columns); };
  canvas.at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientY - box.top) / box.height) * rows, ((event.clientX - box.left) / box.width) * columns];
  };
  canvas.redraw();
  return canvas;
}
function heatTile(values, h, w, scale, low, high) {
  const tile = el("canvas", { width: w, height: h }), c = tile.getContext("2d"), data = c.createImageData(w, h);
  for (let i = 0; i < h * w; i++) {
    const bad = Number.isNaN(values[i]), [r, g, b] = bad ? [128, 128, 128] : shade(scale, (values[i] - low) / (high - low || 1));
    data.data.set([r, g, b, bad ? 60 : 255], 4 * i);
  }
  c.putImageData(data, 0, 0);
  return tile;
}
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const x of values) if (isFinite(x)) { if (x < low) low = x; if (x > high) high = x; }
  return [low, high];
}
const line = (c, k, px) => { c.lineWidth = px / k * (window.devicePixelRatio > 1 ? 2 : 1); };
function lines(c, k, rows, columns, stepY, stepX, colour, px) {
  c.strokeStyle = colour; line(c, k, px); c.beginPath();
  for (let y = 0; y <= rows + 1e-6; y += stepY) { c.moveTo(0, y); c.lineTo(columns, y); }
  for (let x = 0; x <= columns + 1e-6; x += stepX) { c.moveTo(x, 0); c.lineTo(x, rows); }
  c.stroke();
}
function figure(view, ...kids) { return el("figure", {}, ...kids, el("figcaption", { textContent: view.label })); }
function slider(label, most, value, change) {
  const input = el("input", { type: "range", min: 0, max: most, value });
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => change(Number(input.value)));
  return el("div", { className: "pick" }, el("span", { textContent: label }), input);
}
function picker(label, names, value, change) {
  if (names.length < 2) return null;
  const select = el("select", {}, ...names.map((name, i) => el("option", { value: i, textContent: name })));
  select.value = value; select.dataset.pick = label;
  select.setAttribute("aria-label", label);
  select.addEventListener("change", () => change(Number(select.value)));
  return el("label", { className: "pick" }, el("span", { textContent: label }), select);
}
/* Extent of a grid in cells, and a function that draws the image under it. */
function scene(view) {
  const [h, w] = view.grid, cell = view.cell;
  return { h, w, paint: (c, alpha = 1) => {
    if (!cell) { c.fillStyle = css("--track"); c.fillRect(0, 0, w, h); return; }
    c.fillStyle = css("--track"); c.fillRect(0, 0, w, h);
    c.globalAlpha = alpha; c.imageSmoothingEnabled = true;
    c.drawImage(photo, 0, 0, T.size[1] / cell[1], T.size[0] / cell[0]);
    c.globalAlpha = 1;
  } };
}
function source(view, index) { // pixels of the photo under a token, or null
  const [, w] = view.grid, cell = view.cell;
  if (index < 0 || !cell) return null;
  const kx = photo.naturalWidth / T.size[1], ky = photo.naturalHeight / T.size[0];
  return [(index % w) * cell[1] * kx, Math.floor(index / w) * cell[0] * ky, cell[1] * kx, cell[0] * ky];
}
function cellAt(c, view, index, y, x, height = 1, width = 1) {
  const from = source(view, index);
  c.fillStyle = css("--line"); c.fillRect(x, y, width, height);
  if (from) c.drawImage(photo, ...from, x, y, width, height);
}
const VIEWS = {};
VIEWS.cut = (view) => {
  const { h, w, paint } = scene(view), [field, stride, padding] = view.field;
  let gap = 0;
  const canvas = board(h, w, (c, k) => {
    if (!gap) {
      paint(c);
      lines(c, k, h, w, 1, 1, "rgba(255,255,255,.75)", w > 40 ? 0.6 : 1.2);
    } else {
      c.fillStyle = css("--track"); c.fillRect(0, 0, w, h);
      for (let i = 0; i < h * w; i++) cellAt(c, view, i, Math.floor(i / w) + gap / 2, (i % w) + gap / 2, 1 - gap, 1 - gap);
    }
    if (field && view.cell) {
      const cell = view.cell[1];
      [[0, 0], [0, 1], [1, 1]].forEach(([dy, dx], i) => {
        const y = (Math.floor(h / 2) + dy) * stride - padding, x = (Math.floor(w / 2) + dx) * stride - padding;
        c.strokeStyle = PANES[i + 1]; line(c, k, 2.5); c.strokeRect(x / cell, y / cell, field / cell, field / cell);
      });
    }
  });
  return figure(view, canvas, slider("pull apart", 10, 0, (v) => { gap = v / 20; canvas.redraw(); }));
};
function hover(canvas, out, read) {
  canvas.addEventListener("pointermove", (event) => { out.textContent = read(...canvas.at(event).map(Math.floor)) || ""; });
}
VIEWS.heat = (view) => {
  const { h, w, paint } = scene(view), values = unpack(view.values), [vh, vw] = values.shape, step = view.step;
  const [low, high] = range(values.v), tile = heatTile(values.v, vh, vw, HOT, low, high), out = el("output", { className: "readout" });
  let over = view.cell ? 0.72 : 1;
  const canvas = board(h, w, (c) => {
    paint(c); c.globalAlpha = over; c.imageSmoothingEnabled = false;
    c.drawImage(tile, 0, 0, vw * step, vh * step); c.globalAlpha = 1;
  });
  hover(canvas, out, (y, x) => {
    const r = Math.floor(y / step), q = Math.floor(x / step);
    return r >= 0 && q >= 0 && r < vh && q < vw ? `row ${r * step}, column ${q * step}: ${show(values.v[r * vw + q])}` : "";
  });
  const note = `${show(low)} dark … ${show(high)} bright` + (step > 1 ? `; every ${step}th row and column` : "");
  return figure(view, canvas, view.cell ? slider("heat", 10, 7, (v) => { over = v / 10; canvas.redraw(); }) : null, el("span", { className: "readout", textContent: note }), out);
};
VIEWS.laid = (view) => {
  const index = unpack(view.index), [ph, pw] = index.shape, [h, w] = view.grid, [wh, ww] = view.window, [up, left] = view.shift;
  const regions = view.regions ? unpack(view.regions).v : null;
  const most = Math.max(up, left), reverse = view.step === "reverse", cutting = view.step === "cut" || (reverse && !most);
  let t = view.step === "roll" ? 0 : view.step === "reverse" ? (most ? 0 : 5) : view.step === "cut" ? 4 : most;
  const rolled = (y, x, by) => { // token in a place after a roll by part of the shift
    const dy = most ? Math.round(up * by / most) : 0, dx = most ? Math.round(left * by / most) : 0;
    const place = ((y - up + dy + ph) % ph) * pw + ((x - left + dx + pw) % pw);
    return index.v[place];
  };
  const canvas = board(ph, pw, (c, k) => {
    c.fillStyle = css("--track"); c.fillRect(0, 0, pw, ph);
    const gap = cutting ? t / 10 : 0, by = cutting ? most : reverse ? most - t : t;
    for (let y = 0; y < ph; y++) for (let x = 0; x < pw; x++) {
      const wy = Math.floor(y / wh), wx = Math.floor(x / ww), s = 1 - gap / Math.max(wh, ww) * 2;
      const token = rolled(y, x, by);
      if (gap) {
        const cy = (wy + 0.5) * wh, cx = (wx + 0.5) * ww;
        cellAt(c, view, token, cy + (y - cy) * s, cx + (x - cx) * s, s + 0.02, s + 0.02);
      } else cellAt(c, view, token, y, x, 1.01, 1.01);
      if (regions) {
        const r = regions[y * pw + x];
        c.globalAlpha = 0.5; c.fillStyle = r < 0 ? "#888" : PANES[r]; c.fillRect(x, y, 1.01, 1.01); c.globalAlpha = 1;
      }
    }
    if (view.step === "roll" && t < most) {
      c.fillStyle = "rgba(217,154,30,.35)"; c.fillRect(0, 0, pw, up - t > 0 ? up - t : 0); c.fillRect(0, 0, left - t > 0 ? left - t : 0, ph);
    }
    if (!gap) {
      if (pw <= 32) lines(c, k, ph, pw, 1, 1, "rgba(255,255,255,.3)", 0.6);
      const done = by === most;
      lines(c, k, ph, pw, wh, ww, done ? "#fff" : "rgba(255,255,255,.5)", 2);
    }
    if (regions) {
      const found = {};
      for (let i = 0; i < ph * pw; i++) { const r = regions[i]; (found[r] = found[r] || []).push(i); }
      c.fillStyle = "#fff"; c.textAlign = "center"; c.textBaseline = "middle";
      for (const [r, all] of Object.entries(found)) {
        const ys = all.map((i) => Math.floor(i / pw)), xs = all.map((i) => i % pw);
        const y0 = Math.min(...ys), y1 = Math.max(...ys) + 1, x0 = Math.min(...xs), x1 = Math.max(...xs) + 1;
        c.font = `bold ${Math.min(y1 - y0, x1 - x0, pw / 9) * 0.72}px sans-serif`;
        if (r >= 0) c.fillText(r, (x0 + x1) / 2, (y0 + y1) / 2);
      }
    }
  });
  const out = el("output", { className: "readout" });
  hover(canvas, out, (y, x) => {
    if (y < 0 || x < 0 || y >= ph || x >= pw) return "";
    const token = index.v[y * pw + x], where = token < 0 ? "padding" : `cell (${Math.floor(token / w)}, ${token % w})`;
    return `window ${Math.floor(y / wh) * (pw / ww) + Math.floor(x / ww)}, place (${y}, ${x}) ← ${where}` + (regions ? `, region ${regions[y * pw + x]}` : "");
  });
  const label = cutting ? "pull windows apart" : reverse ? "roll back" : "roll";
  const pick = view.step === "regions" ? null : slider(label, cutting ? 10 : most, t, (v) => { t = v; canvas.redraw(); });
  return figure(view, canvas, pick, out);
};
VIEWS.matrix = (view) => {
  const values = unpack(view.values), dims = values.shape, n = dims[dims.length - 2], m = dims[dims.length - 1];
  const chosen = view.picks.map(([name, names]) => Math.min(name === "head" ? state.head : name === "window" ? state.window : 0, names.length - 1));
  if (view.mask && chosen.length) chosen[0] = view.picks[0][1].length - 1;
  const out = el("output", { className: "readout" }), scale = el("span", { className: "readout" });
  let words = null;
  const part = () => {
    const at = chosen.reduce((sum, i, axis) => sum * dims[axis] + i, 0);
    return values.v.subarray(at * n * m, (at + 1) * n * m);
  };
  const canvas = board(Math.max(n, m / 6), m, (c) => { // no taller than a screen
    const now = part(), [low, high] = range(now), signed = low < 0;
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    c.imageSmoothingEnabled = false;
    c.drawImage(signed ? heatTile(now, n, m, COLD, -most, most) : heatTile(now, n, m, HOT, view.mask ? 0 : low, view.mask ? 1 : high), 0, 0, m, Math.max(n, m / 6));
    scale.textContent = view.mask ? `bright: ${view.mask}, dark: 0` : `${show(low)} … ${show(high)}`;
  }, Math.max(160, Math.min(440, 500 * m / Math.max(n, m / 6))));
  hover(canvas, out, (y, x) => {
    const r = Math.min(n - 1, Math.floor(y * n / Math.max(n, m / 6)));
    if (r < 0 || x < 0 || x >= m) return "";
    const value = part()[r * m + x];
    const named = (names, i) => (names ? ` “${names[i]}”` : "");
    return `${view.rows || "row"} ${r}${named(view.row_names, r)}, ${view.columns || "column"} ${x}${named(view.column_names, x)}: ${view.mask ? (value ? view.mask : 0) : show(value)}`;
  });
  const picks = view.picks.map(([name, names], axis) => picker(name, names.map((each) => (/^\d+$/.test(each) ? `${name} ${each}` : each)), chosen[axis], (i) => {
    chosen[axis] = i; if (name === "head") state.head = i; if (name === "window" && !view.mask) state.window = i; canvas.redraw(); if (words) words.redraw();
  }));
  words = view.row_names ? textRows(view, part, m) : null;
  return figure(view, canvas, ...picks, scale, out, words);
};
function textRows(view, part, m) { // click a query: its keys are shaded
  let query = view.row_names.length - 1;
  const box = el("div"), draw = () => {
    const row = part().subarray(query * m, (query + 1) * m), most = Math.max(...row) || 1;
    const chip = (name, shade, click) => {
      const token = el("span", { textContent: name, title: click ? "query" : show(shade) });
      token.style.setProperty("--s", `${Math.round(85 * shade / most)}%`);
      if (click) { token.tabIndex = 0; token.setAttribute("role", "button"); token.addEventListener("click", click); token.addEventListener("keydown", (event) => { if (event.key === "Enter") click(); }); }
      return token;
    };
    box.replaceChildren(
      el("p", { className: "readout", textContent: "query (choose):" }), el("div", { className: "tokens" }, ...view.row_names.map((name, i) => chip(name, i === query ? most : 0, () => { query = i; draw(); }))),
      el("p", { className: "readout", textContent: "its keys:" }), el("div", { className: "tokens" }, ...view.column_names.map((name, j) => chip(name, row[j]))));
  };
  draw();
  box.redraw = draw;
  return box;
}
VIEWS.merges = (view) => {
  const most = Math.max(...view.words.map((word) => word.length)) - 1, box = el("div", { className: "merges" });
  const draw = (at) => box.replaceChildren(...view.words.map((word) => {
    const [tokens, pair, rank] = word[Math.min(at, word.length - 1)];
    return el("div", { className: "tokens" }, ...tokens.map((token, i) => el("span", { textContent: token, className: pair >= 0 && (i === pair || i === pair + 1) ? "next" : "" })), rank >= 0 ? el("em", { textContent: `merge ${rank}` }) : null);
  }));
  draw(0);
  const node = figure(view, box, slider("merges", most, 0, draw));
  node.className = "full";
  return node;
};
VIEWS.bias = (view) => {
  const table = unpack(view.table), index = view.index ? unpack(view.index) : null, [heads, th, tw] = table.shape, [h, w] = view.size;
  const n = h * w, H = (th + 1) / 2, W = (tw + 1) / 2;
  let head = Math.min(state.head, heads - 1), query = Math.floor(n / 2), key = Math.max(0, Math.floor(n / 2) - w + 1);
  const out = el("output", { className: "readout" }), at = (i, j) => (index ? index.v[i * n + j] : (Math.floor(i / w) - Math.floor(j / w) + H - 1) * tw + (i % w) - (j % w) + W - 1);
  const values = () => table.v.subarray(head * th * tw, (head + 1) * th * tw);
  const box = (c, k, y, x, colour) => { c.strokeStyle = colour; line(c, k, 2.5); c.strokeRect(x, y, 1, 1); };
  const left = board(h, w, (c, k) => {
    const now = values(), [low, high] = range(now), most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    for (let j = 0; j < n; j++) {
      const entry = now[at(query, j)], [r, g, b] = shade(COLD, entry / most / 2 + 0.5);
      c.fillStyle = `rgb(${r},${g},${b})`; c.fillRect(j % w, Math.floor(j / w), 1, 1);
      if (w <= 9) { c.fillStyle = Math.abs(entry / most) > 0.6 ? "#fff" : "#111"; c.font = "0.3px sans-serif"; c.textAlign = "center"; c.textBaseline = "middle"; c.fillText(at(query, j), (j % w) + 0.5, Math.floor(j / w) + 0.5); }
    }
    box(c, k, Math.floor(query / w), query % w, "#111"); box(c, k, Math.floor(key / w), key % w, "#d99a1e");
  }, 300);
  const right = board(th, tw, (c, k) => {
    const now = values(), [low, high] = range(now), most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    c.imageSmoothingEnabled = false; c.drawImage(heatTile(now, th, tw, COLD, -most, most), 0, 0, tw, th);
    const first = at(query, n - 1), last = at(query, 0);
    c.strokeStyle = "#111"; line(c, k, 1.5);
    c.strokeRect(first % tw, Math.floor(first / tw), (last % tw) - (first % tw) + 1, Math.floor(last / tw) - Math.floor(first / tw) + 1);
    box(c, k, Math.floor(at(query, key) / tw), at(query, key) % tw, "#d99a1e");
  }, 300);
  const redraw = () => {
    left.redraw(); right.redraw();
    const [qy, qx, ky, kx] = [Math.floor(query / w), query % w, Math.floor(key / w), key % w], row = at(query, key);
    out.textContent = `query (${qy}, ${qx}), key (${ky}, ${kx}): (${qy} − ${ky} + ${H - 1})·${tw} + (${qx} − ${kx} + ${W - 1}) = ${row}; table[${row}] of head ${head} = ${show(values()[row])}`;
  };
  const read = (event) => { const [y, x] = left.at(event).map(Math.floor); return Math.min(n - 1, Math.max(0, y * w + x)); };
  left.addEventListener("pointermove", (event) => { key = read(event); redraw(); });
  left.addEventListener("click", (event) => { query = read(event); redraw(); });
  left.tabIndex = 0; left.setAttribute("aria-label", "Query cell: arrow keys move it");
  left.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -w, ArrowDown: w }[event.key];
    if (move && query + move >= 0 && query + move < n) { query += move; redraw(); event.preventDefault(); event.stopPropagation(); }
  });
  redraw();
  const pick = picker("head", Array.from({ length: heads }, (_, i) => `head ${i}`), head, (i) => { head = state.head = i; redraw(); });
  const node = figure(view, el("div", { className: "pair" }, left, right), pick, out);
  node.append(el("span", { className: "readout", textContent: "Left: the cells of a window with the row of the table that the query (black) reads for each key. Right: the table of the head. Click for a query, point for a key." }));
  return node;
};
VIEWS.attention = (view) => {
  const values = unpack(view.values), keys = unpack(view.keys), [, heads, m] = values.shape, [h, w, prefix] = view.grid, { paint } = scene(view);
  const mean = heads > 1 ? ["mean of the heads"] : [], names = [...mean, ...Array.from({ length: heads }, (_, i) => `head ${i}`)];
  let head = Math.min(state.head, names.length - 1), query = Math.min(state.query, view.queries.length - 1), tile = null, low = 0, high = 1;
  const out = el("output", { className: "readout" }), scale = el("span", { className: "readout" });
  const row = () => {
    const full = new Float32Array(prefix + h * w).fill(NaN), first = mean.length ? head - 1 : head;
    let padding = 0;
    for (let j = 0; j < m; j++) {
      let value = 0;
      if (first < 0) { for (let i = 0; i < heads; i++) value += values.v[(query * heads + i) * m + j] / heads; } else value = values.v[(query * heads + first) * m + j];
      const token = keys.v[query * m + j];
      if (view.spans) {
        const [y0, y1, x0, x1] = view.spans[token];
        for (let y = y0; y < y1; y++) full.fill(value, prefix + y * w + x0, prefix + y * w + x1);
      } else if (token < 0) padding += value; else full[token] = (Number.isNaN(full[token]) ? 0 : full[token]) + value;
    }
    return [full, padding];
  };
  const prepare = () => {
    const [full, padding] = row(), cells = full.subarray(prefix);
    [low, high] = range(cells); tile = heatTile(cells, h, w, HOT, low, high);
    const token = view.queries[query], where = token < prefix ? `prefix token ${token}` : `cell (${Math.floor((token - prefix) / w)}, ${(token - prefix) % w})`;
    const extra = Array.from({ length: prefix }, (_, i) => (Number.isNaN(full[i]) ? "" : `, prefix ${i}: ${show(full[i])}`)).join("");
    scale.textContent = `query ${where}; ${show(low)} … ${show(high)}${extra}${padding ? `, padding: ${show(padding)}` : ""}`;
    return full;
  };
  let full = prepare();
  const canvas = board(h, w, (c, k) => {
    paint(c); c.globalAlpha = view.cell ? 0.78 : 1; c.imageSmoothingEnabled = false; c.drawImage(tile, 0, 0, w, h); c.globalAlpha = 1;
    view.queries.forEach((token, i) => {
      if (token < prefix) return;
      const y = Math.floor((token - prefix) / w) + 0.5, x = ((token - prefix) % w) + 0.5;
      const radius = Math.max(0.18, w / 90) * (i === query ? 1.6 : 0.7);
      c.beginPath(); c.arc(x, y, radius, 0, 7); c.strokeStyle = "#000"; line(c, k, i === query ? 4 : 2); c.stroke();
      c.strokeStyle = "#fff"; line(c, k, i === query ? 2 : 1); c.stroke();
    });
  });
  const redraw = () => { full = prepare(); canvas.redraw(); };
  const label = (token) => (token < prefix ? `prefix token ${token}` : `cell (${Math.floor((token - prefix) / w)}, ${(token - prefix) % w})`);
  const queryPick = picker("query", view.queries.map(label), query, (i) => { query = state.query = i; redraw(); });
  const headPick = picker("head", names, head, (i) => { head = state.head = i; redraw(); });
  canvas.addEventListener("click", (event) => {
    const [y, x] = canvas.at(event);
    let best = Infinity;
    view.queries.forEach((token, i) => {
      if (token < prefix) return;
      const d = Math.hypot(Math.floor((token - prefix) / w) + 0.5 - y, ((token - prefix) % w) + 0.5 - x);
      if (d < best) { best = d; query = state.query = i; }
    });
    if (queryPick) queryPick.lastChild.value = query;
    redraw();
  });
  hover(canvas, out, (y, x) => (y >= 0 && x >= 0 && y < h && x < w && !Number.isNaN(full[prefix + y * w + x]) ? `key cell (${y}, ${x}): ${show(full[prefix + y * w + x])}` : ""));
  return figure(view, canvas, queryPick, headPick, scale, out);
};
VIEWS.merge = (view) => {
  const { h, w, paint } = scene(view);
  let gap = 0;
  const canvas = board(h, w, (c, k) => {
    paint(c);
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      c.globalAlpha = 0.45; c.fillStyle = PANES[(y % 2) + 2 * (x % 2)]; c.fillRect(x, y, 1, 1); c.globalAlpha = 1;
    }
    lines(c, k, h, w, 2, 2, "#fff", 1.5);
    if (gap) { c.fillStyle = css("--paper"); for (let y = 0; y <= h; y += 2) c.fillRect(0, y - gap / 2, w, gap); for (let x = 0; x <= w; x += 2) c.fillRect(x - gap / 2, 0, gap, h); }
  });
  const legend = el("div", { className: "pick" }, ...view.names.map((name, i) => el("span", { textContent: name, style: `border-left: 10px solid ${PANES[i]}; padding-left: 5px` })));
  return figure(view, canvas, slider("pull apart", 8, 0, (v) => { gap = v / 10; canvas.redraw(); }), legend);
};
VIEWS.squares = (view) => {
  const { h, w, paint } = scene(view);
  return figure(view, board(h, w, (c, k) => {
    paint(c); lines(c, k, h, w, 1, 1, "rgba(255,255,255,.25)", 0.5);
    view.spans.forEach(([y0, y1, x0, x1], i) => { c.strokeStyle = "#fff"; line(c, k, 1.6); c.strokeRect(x0, y0, x1 - x0, y1 - y0); c.globalAlpha = 0.22; c.fillStyle = PANES[(i * 5) % 4]; c.fillRect(x0, y0, x1 - x0, y1 - y0); c.globalAlpha = 1; });
  }));
};
VIEWS.maps = (view) => {
  const values = unpack(view.values), [count, h, w] = values.shape, columns = Math.min(count, 4), rows = Math.ceil(count / columns), gap = w * 0.08;
  return figure(view, board(rows * (h + gap), columns * (w + gap), (c) => {
    c.imageSmoothingEnabled = false;
    for (let i = 0; i < count; i++) {
      const now = values.v.subarray(i * h * w, (i + 1) * h * w), [low, high] = range(now), most = Math.max(Math.abs(low), Math.abs(high)) || 1;
      const tile = low < 0 ? heatTile(now, h, w, COLD, -most, most) : heatTile(now, h, w, HOT, low, high);
      c.drawImage(tile, (i % columns) * (w + gap), Math.floor(i / columns) * (h + gap), w, h);
    }
  }), view.names.length ? el("span", { className: "readout", textContent: view.names.join(", ") }) : null);
};
VIEWS.bars = (view) => {
  const values = unpack(view.values).v;
  return figure(view, ...view.labels.map((name, i) => el("div", { className: "barrow" }, el("span", { textContent: name }), el("i", { style: `width: ${100 * values[i]}%` }), el("span", { textContent: values[i].toFixed(4) }))));
};
VIEWS.strip = (view) => {
  const values = unpack(view.values).v, [low, high] = range(values);
  return figure(view, el("div", { className: "tokens" }, ...view.labels.map((name, i) => {
    const token = el("span", { textContent: name, title: show(values[i]) });
    token.style.setProperty("--s", `${Math.round(70 * (values[i] - low) / (high - low || 1))}%`);
    return token;
  })));
};
VIEWS.tree = (view) => el("figure", { className: "full" }, el("div", { className: "scroll", tabIndex: 0 }, treeSvg(view)), el("figcaption", { textContent: view.label }));
function svg(tag, props = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}
function treeSvg(view) { // nodes by step: columns; beam slots: rows
  const dx = 108, dy = 44, steps = view.nodes.length, rows = Math.max(...view.nodes.map((step) => step.length));
  const root = svg("svg", { width: (steps + 1) * dx, height: rows * dy + 20, class: "chart", style: `width:${(steps + 1) * dx}px` });
  view.nodes.forEach((step, s) => step.forEach((node, r) => {
    const x = (s + 1) * dx - 96, y = r * dy + 8;
    if (s) { const py = node.parent * dy + 23; root.append(svg("path", { d: `M${x - 12} ${py} C${x - 6} ${py} ${x - 8} ${y + 15} ${x} ${y + 15}`, fill: "none", stroke: node.best ? css("--b") : css("--faint"), "stroke-width": node.best ? 2.5 : 1.2 })); }
    root.append(svg("rect", { x, y, width: 94, height: 32, rx: 5, fill: css("--card"), stroke: node.best ? css("--b") : css("--line"), "stroke-width": node.best ? 2 : 1, "stroke-dasharray": node.kept ? "" : "3 3" }));
    root.append(svg("text", { x: x + 6, y: y + 14, style: `font-size:12px;fill:${css("--ink")};font-weight:${node.best ? 650 : 400}` }, node.token.length > 12 ? node.token.slice(0, 11) + "…" : node.token));
    root.append(svg("text", { x: x + 6, y: y + 27, class: "tick", style: "font-size:10.5px" }, node.note));
  }));
  return root;
}

function draw() {
  const frame = T.frames[state.frame], box = byId("frame");
  const numbers = [["in", frame.shape_in.join(" × ")], ["out", frame.shape_out.join(" × ")], ["parameters", frame.parameters ? frame.parameters.toLocaleString("en") : ""], ["multiply-adds", frame.multiply_adds ? frame.multiply_adds.toLocaleString("en") : ""]].filter(([, value]) => value);
  box.replaceChildren(
    el("p", { className: "kicker", textContent: frame.group }), el("h2", { textContent: frame.title }),
    frame.text ? el("p", { textContent: frame.text }) : el("span"),
    el("ul", { className: "formulas" }, ...frame.formulas.map((each) => el("li", { textContent: each }))),
    el("p", { className: "numbers" }, ...numbers.map(([name, value]) => el("span", {}, `${name} `, el("b", { textContent: value })))),
  );
  const views = el("div", { className: "views" });
  box.append(views);
  views.append(...frame.views.map((view) => VIEWS[view.kind](view)));
  byId("count").textContent = `${state.frame + 1} of ${T.frames.length}`;
  byId("slider").value = state.frame;
  byId("back").disabled = state.frame === 0; byId("next").disabled = state.frame === T.frames.length - 1;
  byId("group").value = frame.group;
}
function go(i) {
  state.frame = Math.min(Math.max(i, 0), T.frames.length - 1);
  history.replaceState(null, "", `#${state.frame + 1}`);
  draw();
}
function cycle(name) {
  const select = document.querySelector(`#frame select[data-pick="${name}"]`);
  if (!select) return;
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  const value = select.selectedIndex;
  document.querySelectorAll(`#frame select[data-pick="${name}"]`).forEach((each) => { if (each.options.length > value) each.value = value; each.dispatchEvent(new Event("change")); });
}
function lens() {
  if (!T.lens.layers) return;
  const values = unpack(T.lens.values), k = T.lens.labels.length;
  byId("lens").append(
    el("thead", {}, el("tr", {}, ...["after", "best there", ...T.lens.labels].map((name) => el("th", { textContent: name, title: name })))),
    el("tbody", {}, ...T.lens.layers.map((layer, i) => el("tr", {}, el("td", { textContent: layer }), el("td", { textContent: `${T.lens.own[i][0]} ${T.lens.own[i][1].toFixed(3)}` }), ...T.lens.labels.map((_, j) => {
      const cell = el("td", { className: "p", textContent: values.v[i * k + j].toFixed(4) });
      cell.style.setProperty("--s", `${Math.round(100 * values.v[i * k + j])}%`);
      return cell;
    })))));
}
function costs() { // squarified by simple slices: area is cost, colour the part
  const box = byId("cost"), key = T.frames.some((frame) => frame.multiply_adds) ? "multiply_adds" : "parameters";
  const items = T.frames.map((frame, i) => ({ i, value: frame[key] || 0, frame })).filter((each) => each.value > 0);
  const total = items.reduce((sum, each) => sum + each.value, 0), map = el("div", { className: "treemap" });
  const split = (part, x, y, w, h, ratio) => {
    if (!part.length) return;
    if (part.length === 1) {
      const { i, value, frame } = part[0], share = (100 * value / total).toFixed(1);
      const tile = el("button", { type: "button", title: `${frame.group}, ${frame.title}: ${value.toLocaleString("en")} (${share} %)`, textContent: w > 7 && h > 8 ? `${frame.group} ${frame.title} ${share} %` : "" });
      tile.setAttribute("aria-label", tile.title);
      Object.assign(tile.style, { left: x + "%", top: y + "%", width: w + "%", height: h + "%", background: PANES[groups.indexOf(frame.group.split(" · ")[0]) % 4] });
      tile.addEventListener("click", () => { go(i); byId("player").scrollIntoView(); });
      map.append(tile);
      return;
    }
    const sum = part.reduce((a, b) => a + b.value, 0);
    let half = 0, cut = 0;
    while (cut < part.length - 1 && (cut === 0 || half + part[cut].value / 2 < sum / 2)) half += part[cut++].value;
    const f = half / sum;
    if (w * ratio >= h) { split(part.slice(0, cut), x, y, w * f, h, ratio); split(part.slice(cut), x + w * f, y, w * (1 - f), h, ratio); }
    else { split(part.slice(0, cut), x, y, w, h * f, ratio); split(part.slice(cut), x, y + h * f, w, h * (1 - f), ratio); }
  };
  const groups = [...new Set(items.map((each) => each.frame.group.split(" · ")[0]))];
  if (!items.length) { box.append(el("p", { className: "caption", textContent: "No step has a counted cost." })); return; }
  split(items, 0, 0, 100, 100, innerWidth > 720 ? 2.6 : 1);
  box.append(map, el("p", { className: "caption", textContent: `Area: ${key.replace("_", "-")} of a step, ${total.toLocaleString("en")} in all; colour: the part of the model. Click to go there.` }));
}
function start() {
  const groups = [...new Set(T.frames.map((frame) => frame.group))];
  byId("group").append(...groups.map((name) => el("option", { value: name, textContent: name })));
  byId("slider").max = T.frames.length - 1;
  byId("group").addEventListener("change", () => go(T.frames.findIndex((frame) => frame.group === byId("group").value)));
  byId("slider").addEventListener("input", () => go(Number(byId("slider").value)));
  byId("back").addEventListener("click", () => go(state.frame - 1));
  byId("next").addEventListener("click", () => go(state.frame + 1));
  const keys = { ArrowRight: () => go(state.frame + 1), ArrowLeft: () => go(state.frame - 1), Home: () => go(0), End: () => go(T.frames.length - 1), h: () => cycle("head"), w: () => cycle("window"), q: () => cycle("query") };
  addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault(); keys[event.key]();
  });
  const linked = () => { const n = parseInt(location.hash.slice(1), 10); if (n > 0) go(n - 1); };
  addEventListener("hashchange", linked);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  draw(); linked(); lens(); costs();
}
if (T.image) { photo.addEventListener("load", start); photo.src = T.image; } else start();
