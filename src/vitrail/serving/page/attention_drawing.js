// Drawings of attention: the large map over the image, and the atlas of all layers and heads.
import { COLD, HEAT, themed } from "./colours.js";
import { canvasOf } from "./dom.js";
import { rowOf, tokenOf } from "./maps.js";

// Weights of the cells as an image of one pixel a cell, by the square root of their share of the largest, as small
// weights would be black otherwise; `alpha` maps a level in 0..1 to an opacity.
function cellsImage(layer, weights, seen, alpha, outsideAlpha) {
  const [rows, columns] = layer.grid, canvas = canvasOf(columns, rows), pen = canvas.getContext("2d");
  const data = pen.createImageData(columns, rows), first = layer.prefix;
  let largest = 1e-12;
  for (let i = first; i < weights.length; i++) largest = Math.max(largest, Math.abs(weights[i]));
  for (let i = 0; i < rows * columns; i++) {
    const signed = weights[first + i] / largest, level = Math.sqrt(Math.abs(signed)), outside = seen && !seen[first + i];
    data.data.set((signed < 0 ? COLD : HEAT)[outside ? 0 : Math.round(255 * level)], 4 * i);
    data.data[4 * i + 3] = Math.round(255 * (outside ? outsideAlpha : alpha(level)));
  }
  pen.putImageData(data, 0, 0);
  return canvas;
}

export function drawMap(view, layer, token, weights) {
  const { canvas, picture, header } = view, pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = picture.width < canvas.width / 3 ? false : true;
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (!layer.grid) return;
  const [unitY, unitX] = layer.cell.map((size, i) => (size / header.image[i]) * (i ? canvas.width : canvas.height));
  if (weights) {
    pen.imageSmoothingEnabled = false;
    const cells = cellsImage(layer, weights, view.row.seen, (level) => 0.7 - 0.38 * level, 0.82);
    pen.drawImage(cells, 0, 0, layer.grid[1] * unitX, layer.grid[0] * unitY);
    frame(pen, layer, view.row.seen, unitX, unitY);
  }
  if (token >= layer.prefix) mark(pen, token - layer.prefix, layer.grid[1], unitX, unitY);
}

// A heatmap through all layers; the cells of its queries may be larger than its own.
export function drawHeat(canvas, picture, heat, row) {
  const pen = canvas.getContext("2d"), unit = (layer) => layer.cell.map((size, i) => (size / heat.image[i]) * (i ? canvas.width : canvas.height));
  pen.imageSmoothingEnabled = picture.width >= canvas.width / 3;
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = false;
  const [unitY, unitX] = unit(heat);
  const cells = cellsImage({ grid: heat.grid, prefix: 0 }, row.weights, null, (level) => 0.7 - 0.38 * level, 0.82);
  pen.drawImage(cells, 0, 0, heat.grid[1] * unitX, heat.grid[0] * unitY);
  if (heat.queries && row.token >= heat.queries.prefix) {
    const [largeY, largeX] = unit(heat.queries);
    mark(pen, row.token - heat.queries.prefix, heat.queries.grid[1], largeX, largeY);
  }
}

// Outline of the cells that the query can see, if those are not all.
function frame(pen, layer, seen, unitX, unitY) {
  const [rows, columns] = layer.grid, at = (y, x) => y >= 0 && x >= 0 && y < rows && x < columns && seen[layer.prefix + y * columns + x];
  if (!seen.subarray(layer.prefix).includes(0)) return;
  pen.strokeStyle = "#7fd4ff";
  pen.lineWidth = 1.5;
  pen.beginPath();
  for (let y = 0; y <= rows; y++)
    for (let x = 0; x <= columns; x++) {
      if (Boolean(at(y, x)) !== Boolean(at(y - 1, x))) { pen.moveTo(x * unitX, y * unitY); pen.lineTo((x + 1) * unitX, y * unitY); }
      if (Boolean(at(y, x)) !== Boolean(at(y, x - 1))) { pen.moveTo(x * unitX, y * unitY); pen.lineTo(x * unitX, (y + 1) * unitY); }
    }
  pen.stroke();
}

function mark(pen, cell, columns, unitX, unitY) {
  const left = (cell % columns) * unitX, top = Math.floor(cell / columns) * unitY;
  pen.lineWidth = 4;
  pen.strokeStyle = "#000000";
  pen.strokeRect(left, top, unitX, unitY);
  pen.lineWidth = 2;
  pen.strokeStyle = "#ffffff";
  pen.strokeRect(left, top, unitX, unitY);
}

// A column a layer, a row a head, for the query of the view.
export function drawAtlas(view) {
  const { atlas, layers } = view, most = Math.max(...layers.map((layer) => layer.heads));
  const room = Math.max(220, (atlas.parentElement.clientWidth || 440) - 8), top = 20, gap = 3;
  const scale = window.devicePixelRatio || 1;
  const tile = Math.max(11, Math.min(44, Math.floor(room / layers.length) - gap, Math.floor(400 / most) - gap));
  const width = layers.length * (tile + gap) + 2, height = top + most * (tile + gap);
  if (atlas.width !== Math.round(width * scale) || atlas.height !== Math.round(height * scale)) {
    atlas.width = Math.round(width * scale);
    atlas.height = Math.round(height * scale);
    atlas.style.width = `${width}px`;
    atlas.style.height = `${height}px`;
  }
  atlas.layout = { top, tile, gap, heads: layers.map((layer) => layer.heads) };
  const pen = atlas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.imageSmoothingEnabled = false;
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.textAlign = "center";
  layers.forEach((layer, i) => {
    const left = 1 + i * (tile + gap), row = layer.levels && layer.grid ? rowOf(layer, tokenOf(layer, view.query, view.header.image)) : null;
    pen.fillStyle = themed(i === view.layer ? "--ink" : "--soft");
    const stage = layer.address.split(".")[0], first = !i || layers[i - 1].address.split(".")[0] !== stage;
    if (tile >= 22) pen.fillText(layer.address, left + tile / 2, top / 2);
    else if (first) pen.fillText(stage, left + tile / 2, top / 2); // there is room for the stage alone
    for (let head = 0; head < layer.heads; head++) {
      const y = top + head * (tile + gap);
      pen.fillStyle = themed("--track");
      pen.fillRect(left, y, tile, tile);
      if (row) pen.drawImage(cellsImage(layer, row.weights[head], row.seen, () => 1, 1), left, y, tile, tile);
      if (i === view.layer && (head === view.head || view.head < 0)) {
        pen.strokeStyle = themed("--a");
        pen.lineWidth = 2;
        pen.strokeRect(left - 1, y - 1, tile + 2, tile + 2);
      }
    }
  });
}

// Layer and head under a click.
export function hitAtlas(atlas, event) {
  const box = atlas.getBoundingClientRect(), { top, tile, gap, heads } = atlas.layout;
  const layer = Math.floor((event.clientX - box.left) / (tile + gap)), head = Math.floor((event.clientY - box.top - top) / (tile + gap));
  return layer >= 0 && layer < heads.length && head >= 0 && head < heads[layer] ? { layer, head } : null;
}
