// Colours that the library uses too: heat of explain, palette of masks, hues of boxes.
const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

// matplotlib's inferno at eight stops, enough for 256 levels on a screen.
export const HEAT = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (STOPS.length - 1), low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((value, i) => Math.round(value + (STOPS[low + 1][i] - value) * (place - low)));
});

// Negative weights, of heads that are mixed after the softmax: dark to light blue.
export const COLD = HEAT.map((_, level) => [Math.round(level * 0.35), Math.round(level * 0.75), level]);

// The palette of PASCAL VOC: bits of the number from the highest bit of each channel down.
export function maskColour(number) {
  const colour = [0, 0, 0];
  for (let bit = 0; bit < 3; bit++)
    for (let channel = 0; channel < 3; channel++) colour[channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit);
  return colour;
}

// Hues at the golden ratio, as the detector draws its boxes.
export function boxColour(index) {
  const hue = (0.58 + 0.618034 * index) % 1, value = 0.9, chroma = 0.75;
  const one = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * value * (1 - chroma * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [one(5), one(3), one(1)];
}

export const css = ([r, g, b], alpha = 1) => `rgba(${r}, ${g}, ${b}, ${alpha})`;

// Black or white, whichever has the larger contrast on a colour.
export const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff");

// A colour of the page, of the theme in use.
export const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
