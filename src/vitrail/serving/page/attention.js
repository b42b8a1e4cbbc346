// Viewer of attention: point at a patch and see whom it attends to, in every layer and head.
import { attention, heatmap } from "./api.js";
import { drawAtlas, drawHeat, drawMap, hitAtlas } from "./attention_drawing.js";
import { announce, canvasOf, el, labelled, percent, select, slider } from "./dom.js";
import { heatAlone, heatRow, readHeat } from "./heat.js";
import { largestOf, meanOf, rowOf, tokenOf, tokensOf } from "./maps.js";
import { loaded } from "./picture.js";
import { t } from "./strings.js";

const SIDE = 448; // pixels of the large map
const SHARED = new Set(); // viewers of one page show the same place

export class AttentionView {
  constructor(model, input) {
    Object.assign(this, { model, input, query: { y: 0.5, x: 0.5 }, head: -1, layer: 0, row: null, heats: {}, whole: true });
    this.node = el("section", { class: "attention" }, el("h3", {}, t("attention.title")));
    this.overview = el("div", { class: "overview" });
  }

  async load(signal) {
    if (!this.model.attention) {
      this.node.append(el("p", { class: "soft" }, t(this.model.parameters === null ? "attention.exported" : "attention.none", { model: this.model.name })));
      if (this.model.heatmaps?.includes("gradcam")) this.node.append(...(await heatAlone(this.model, this.input, SIDE, signal)));
      return;
    }
    const { header, layers } = await attention(this.model, this.input, {}, signal);
    this.header = header;
    this.layers = header.layers.map((facts) => ({ ...facts, ...layers.find((one) => one.layer === facts.address) }));
    this.picture = await loaded(header.seen);
    this.layer = this.layers.length - 1;
    if (header.prefix) this.query = { token: 0 };
    this._build();
    SHARED.add(this);
    await this.show();
  }

  remove() {
    SHARED.delete(this);
  }

  _build() {
    const [height, width] = this.header.image, factor = SIDE / Math.max(height, width);
    this.canvas = canvasOf(Math.round(width * factor), Math.round(height * factor), {
      tabindex: "0", role: "application", "aria-label": t("attention.canvas"), class: "map",
    });
    this.reading = el("p", { class: "reading", "aria-live": "polite" });
    this.atlas = canvasOf(10, 10, {
      role: "img", class: "atlas",
      "aria-label": t("attention.atlas.label", { layers: this.layers.length, heads: Math.max(...this.layers.map((one) => one.heads)) }),
    });
    const controls = el("div", { class: "controls" });
    this.slider = labelled(controls, t("attention.layer"), slider(0, this.layers.length - 1, 1, this.layer, (i) => this._layerName(i), (i) => this.choose(i)));
    this.layerName = el("output", { for: this.slider.id });
    this.slider.after(this.layerName);
    this.headField = el("span");
    this.answer = el("button", { type: "button", class: "chip", onclick: () => { this.whole = true; this.show(); } }, t("heat.answer"));
    this.note = el("p", { class: "caption" });
    controls.append(this.headField, this._queries(), this.answer);
    const [rows, columns] = this.header.image;
    this.node.append(
      controls, this.canvas, this.reading, this.note,
      el("p", { class: "caption" }, t("attention.help"), " ", t("attention.scale"), " ", this.layers.some((one) => one.levels?.some((level) => level < 0)) ? `${t("attention.negative")} ` : "", t("attention.seen", { height: rows, width: columns })),
    );
    this.overview.append(el("h3", {}, t("attention.atlas")), el("div", { class: "scroll" }, this.atlas), el("p", { class: "caption" }, t("attention.atlas.hint")));
    this._listen();
  }

  // Chips of the tokens that are no patches, and of the patch.
  _queries() {
    const prefix = Math.max(...this.layers.map((one) => one.prefix || 0));
    this.chips = el("div", { class: "chips", role: "group", "aria-label": t("attention.readers") });
    if (!prefix) return this.chips;
    const chip = (text, query) => el("button", { type: "button", class: "chip", onclick: () => this.point(query()) }, text);
    for (let token = 0; token < prefix; token++) this.chips.append(chip(this._tokenName(token, true), () => ({ token })));
    this.chips.append(chip(t("attention.readers.cell"), () => this.last || { y: 0.5, x: 0.5 }));
    return this.chips;
  }

  _tokenName(token, title = false) {
    if (token === 0) return t(title ? "attention.prefix.class" : "attention.token.class");
    return t(title ? "attention.prefix" : "attention.token.other", { number: token });
  }

  _layerName(i) {
    return t("attention.layer.value", { address: this.layers[i].address, number: i + 1, count: this.layers.length });
  }

  _listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const share = (value) => Math.max(0, Math.min(0.99999, value));
      return { y: share((event.clientY - box.top) / box.height), x: share((event.clientX - box.left) / box.width) };
    };
    this.canvas.addEventListener("pointermove", (event) => this.point(at(event), false));
    this.canvas.addEventListener("pointerdown", (event) => this.point(at(event), false));
    this.canvas.addEventListener("keydown", (event) => this._key(event));
    this.atlas.addEventListener("click", (event) => {
      const found = hitAtlas(this.atlas, event);
      if (found) { this.head = found.head; this.choose(found.layer); }
    });
  }

  _key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const turn = { PageUp: -1, PageDown: 1 }[event.key];
    if (!step && !turn) return;
    event.preventDefault();
    if (turn) return this.choose(Math.max(0, Math.min(this.layers.length - 1, this.layer + turn)));
    const { grid, cell } = this.layers[this.layer], image = this.header.image, now = this.query.token === undefined ? this.query : this.last || { y: 0.5, x: 0.5 };
    const [y, x] = ["y", "x"].map((axis, i) => {
      const place = Math.max(0, Math.min(grid[i] - 1, Math.floor((now[axis] * image[i]) / cell[i]) + step[i]));
      return Math.min(0.99999, ((place + 0.5) * cell[i]) / image[i]);
    });
    this.point({ y, x });
  }

  choose(layer) {
    this.layer = layer;
    this.slider.value = layer;
    this.slider.setAttribute("aria-valuetext", this._layerName(layer));
    this.show();
  }

  // Every viewer of the page moves to the same place; tokens without a place stay in their own model.
  point(query) {
    const viewers = query.token === undefined ? SHARED : [this];
    for (const viewer of viewers) {
      viewer.query = query;
      viewer.whole = false;
      if (query.token === undefined) viewer.last = query;
      viewer.show();
    }
  }

  async show() {
    if (this.waiting) return;
    this.waiting = true;
    await new Promise(requestAnimationFrame);
    this.waiting = false;
    const layer = this.layers[this.layer];
    if (this.head >= layer.heads) this.head = -1;
    await this._fetch(layer);
    this._controls(layer);
    if (typeof this.head === "string") await this._heat();
    else this._map(layer);
    drawAtlas(this);
  }

  async _heat() {
    try {
      this.heats[this.head] ||= await heatmap(this.model, this.input, this.head);
    } catch (error) {
      this.reading.textContent = error.message;
      return;
    }
    const heat = this.heats[this.head];
    if (!heat) return; // a head was chosen in the meantime
    this.answer.hidden = !heat.queries;
    const row = heatRow(heat, this.whole ? null : this.query);
    drawHeat(this.canvas, this.picture, heat, row);
    this.reading.textContent = readHeat(heat, row, (token) => this._tokenName(token, true));
  }

  _map(layer) {
    const token = layer.grid ? tokenOf(layer, this.query, this.header.image) : -1;
    this.row = layer.levels ? rowOf(layer, token) : null;
    this._read(layer, token);
    drawMap(this, layer, token, this.row && (this.head < 0 ? meanOf(this.row.weights) : this.row.weights[this.head]));
  }

  // Large models send one layer an answer, and very large layers one row.
  async _fetch(layer) {
    const token = layer.grid ? tokenOf(layer, this.query, this.header.image) : 0;
    if (layer.levels && (!layer.rows_only || layer.query === token)) return;
    const choice = { layer: layer.address, ...(layer.rows_only && token >= 0 ? { query: token } : {}) };
    try {
      const found = await attention(this.model, this.input, choice);
      Object.assign(layer, { places: undefined }, found.layers[0]);
    } catch (error) {
      announce(error.message);
    }
  }

  _controls(layer) {
    const names = [["-1", t("attention.head.mean")]];
    for (let head = 0; head < layer.heads; head++) names.push([String(head), t("attention.head.one", { number: head + 1 })]);
    if (this.headField.dataset.heads !== String(layer.heads)) {
      this.headField.dataset.heads = layer.heads;
      this.headField.replaceChildren();
      const kinds = this.model.heatmaps || [];
      for (const kind of kinds) names.push([kind, t(`heat.${kind}`)]);
      this.heads = labelled(this.headField, t("attention.head"), select(names, String(this.head), (value) => {
        this.head = kinds.includes(value) ? value : Number(value);
        this.whole = true;
        this.show();
      }));
    }
    const heat = typeof this.head === "string";
    this.heads.value = String(this.head);
    this.slider.disabled = heat; // all layers are in it
    this.answer.hidden = this.head !== "rollout";
    this.answer.setAttribute("aria-pressed", String(this.whole));
    this.note.hidden = !heat;
    this.note.textContent = heat ? t(`heat.note.${this.head}`) : "";
    this.layerName.textContent = layer.address;
    [...this.chips.children].forEach((chip, i, all) => {
      const on = this.query.token === undefined ? i === all.length - 1 : i === this.query.token;
      chip.setAttribute("aria-pressed", String(on && !(heat && this.whole)));
    });
  }

  _read(layer, token) {
    if (!layer.levels) return;
    const prefix = layer.prefix, place = (one) => ({ row: Math.floor((one - prefix) / layer.grid[1]) + 1, column: ((one - prefix) % layer.grid[1]) + 1 });
    const own = this.query.token !== undefined;
    if (!this.row) {
      this.reading.textContent = t("attention.noquery", { token: own ? this._tokenName(this.query.token) : t("attention.noquery.cell") });
      return;
    }
    const weights = this.head < 0 ? meanOf(this.row.weights) : this.row.weights[this.head];
    const best = largestOf(weights), to = place(best);
    const values = { ...(own ? { token: this._tokenName(token) } : place(token)), toRow: to.row, toColumn: to.column, percent: percent(weights[best]) };
    let text;
    if (own) text = best < prefix ? t("attention.token.prefix", { ...values, other: this._tokenName(best) }) : t("attention.token.reading", values);
    else if (best < prefix) text = t("attention.reading.prefix", { ...values, token: this._tokenName(best) });
    else text = t(best === token ? "attention.reading.self" : "attention.reading", values);
    const cells = layer.grid[0] * layer.grid[1], count = this.row.seen.subarray(prefix, tokensOf(layer)).reduce((sum, one) => sum + one, 0);
    if (count < cells) text += ` ${t("attention.window", { count, total: cells })}`;
    this.reading.textContent = text;
  }
}
