// Images in the browser: decode upright, draw at a size that fits, draw an example.
import { canvasOf } from "./dom.js";

const MOST = 900; // longest side of a drawing, in pixels: layers of it are blended on every move of a slider

// An image bitmap, or null if this browser cannot decode the file (TIFF, 16 bits).
export async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

export function drawn(bitmap, props = {}, most = MOST) {
  const factor = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const canvas = canvasOf(Math.max(1, Math.round(bitmap.width * factor)), Math.max(1, Math.round(bitmap.height * factor)), props);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

export function loaded(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("image"));
    image.src = url;
  });
}

// A small landscape of coloured panes, so that the page can be tried without a file.
export function example() {
  const canvas = canvasOf(320, 240), pen = canvas.getContext("2d");
  const sky = pen.createLinearGradient(0, 0, 0, 150);
  sky.addColorStop(0, "#4c8fd6");
  sky.addColorStop(1, "#f6d9a8");
  pen.fillStyle = sky;
  pen.fillRect(0, 0, 320, 240);
  pen.fillStyle = "#f7c948";
  pen.beginPath();
  pen.arc(244, 62, 26, 0, 7);
  pen.fill();
  for (const [points, colour] of [
    [[0, 170, 70, 92, 150, 170], "#5b6f8f"], [[90, 170, 180, 70, 270, 170], "#43546f"], [[210, 170, 290, 104, 320, 130, 320, 170], "#5b6f8f"],
  ]) {
    pen.fillStyle = colour;
    pen.beginPath();
    for (let i = 0; i < points.length; i += 2) pen.lineTo(points[i], points[i + 1]);
    pen.fill();
  }
  pen.fillStyle = "#4d8a57";
  pen.fillRect(0, 165, 320, 75);
  pen.fillStyle = "#3f7fb3";
  pen.beginPath();
  pen.ellipse(190, 205, 92, 22, 0, 0, 7);
  pen.fill();
  pen.fillStyle = "#6b4a2f";
  pen.fillRect(52, 140, 10, 52);
  pen.fillStyle = "#2f6b3c";
  for (const [x, y, r] of [[57, 122, 26], [40, 140, 18], [75, 140, 18]]) {
    pen.beginPath();
    pen.arc(x, y, r, 0, 7);
    pen.fill();
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// A torus of points as XYZ text.
export function exampleCloud() {
  const lines = [];
  for (let i = 0; i < 1600; i++) {
    const a = i * 2.399963, b = i * 0.618034 * 6.283185, r = 0.72 + 0.28 * Math.cos(b);
    lines.push([r * Math.cos(a), r * Math.sin(a), 0.28 * Math.sin(b)].map((value) => value.toFixed(4)).join(" "));
  }
  return new Blob([lines.join("\n")], { type: "text/plain" });
}
