// Rows of attention maps: which weights the tokens of a layer get from one query.

// Place of each query token of a layer: group * n + row, or -1.
function places(layer, tokens) {
  if (!layer.places) {
    layer.places = new Int32Array(tokens).fill(-1);
    for (let i = 0; i < layer.slots.length; i++) if (layer.slots[i] >= 0) layer.places[layer.slots[i]] = i;
  }
  return layer.places;
}

export const tokensOf = (layer) => layer.prefix + layer.grid[0] * layer.grid[1];

// Token of a query on the grid of a layer. A query is a place in the image, {y, x} as shares of it, or {token}.
export function tokenOf(layer, query, image) {
  if (query.token !== undefined) return query.token < layer.prefix ? query.token : -1;
  const [row, column] = ["y", "x"].map((axis, i) =>
    Math.min(layer.grid[i] - 1, Math.floor((query[axis] * image[i]) / layer.cell[i])));
  return layer.prefix + row * layer.grid[1] + column;
}

// Weights on all tokens, (heads, tokens), and the tokens that the query can see; null if the token is no query here.
export function rowOf(layer, token) {
  const tokens = tokensOf(layer), place = token < 0 ? -1 : places(layer, tokens)[token];
  if (place < 0) return null;
  const { heads, n, m, keys, levels, maxima } = layer, group = Math.floor(place / n), row = place % n;
  const weights = [], seen = new Uint8Array(tokens);
  for (let j = 0; j < m; j++) if (keys[group * m + j] >= 0) seen[keys[group * m + j]] = 1;
  for (let head = 0; head < heads; head++) {
    const at = (group * heads + head) * n + row, largest = maxima[at] / 127, out = new Float32Array(tokens);
    for (let j = 0; j < m; j++) {
      const key = keys[group * m + j];
      if (key >= 0) out[key] += levels[at * m + j] * largest;
    }
    weights.push(out);
  }
  return { weights, seen };
}

export function meanOf(weights) {
  const out = new Float32Array(weights[0].length);
  for (const head of weights) for (let i = 0; i < out.length; i++) out[i] += head[i] / weights.length;
  return out;
}

export function largestOf(weights) {
  let best = 0;
  for (let i = 1; i < weights.length; i++) if (weights[i] > weights[best]) best = i;
  return best;
}
