// The one crop, as `faceattr/images/crop.py` makes it: a square about the box, levelled by the
// eyes, resized as OpenCV does (area when it shrinks, cubic when it grows).
//
// An image is { data, width, height } with 3 or 4 bytes a pixel; what leaves here has 3 (RGB).

const FINE = 4, LEVEL_ENOUGH = 1, LEANS_TOO_MUCH = 45, EYES_APART = 0.15;

export function crop(image, box, rule, landmarks) {
  const { left, top, side } = squareOf(box, rule.margin);
  const tilt = rule.align ? eyeTilt(landmarks, side) : 0;
  return Math.abs(tilt) < LEVEL_ENOUGH
    ? resizedSquare(cutOut(image, left, top, side, side), rule.size)
    : levelled(image, left, top, side, tilt, rule.size);
}

export function eyeTilt(landmarks, side) {
  if (!landmarks) return 0;
  const [[leftX, leftY], [rightX, rightY]] = landmarks;
  const tilt = Math.atan2(rightY - leftY, rightX - leftX) * 180 / Math.PI;
  const isTold = Math.hypot(rightX - leftX, rightY - leftY) >= EYES_APART * side;
  return isTold && Math.abs(tilt) <= LEANS_TOO_MUCH ? tilt : 0;
}

// Python rounds a half to the even number.
export function round(value) {
  const nearest = Math.round(value);
  return Math.abs(value % 1) === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

function squareOf([x0, y0, x1, y1], margin) {
  const side = Math.max(1, round(Math.max(x1 - x0, y1 - y0) * (1 + margin)));
  return { left: round((x0 + x1 - side) / 2), top: round((y0 + y1 - side) / 2), side };
}

const within = (value, length) => Math.min(Math.max(value, 0), length - 1);
const empty = (width, height) => ({ data: new Uint8ClampedArray(3 * width * height), width, height });
const bytesOf = image => image.data.length / (image.width * image.height);

// A window of the image; what lies outside repeats the border.
function cutOut(image, left, top, width, height) {
  const found = empty(width, height), step = bytesOf(image);
  let to = 0;
  for (let y = 0; y < height; y++) {
    const row = within(top + y, image.height) * image.width;
    for (let x = 0; x < width; x++) {
      const from = step * (row + within(left + x, image.width));
      for (let c = 0; c < 3; c++) found.data[to++] = image.data[from + c];
    }
  }
  return found;
}

function resizedSquare(square, size) {
  return square.width > size ? shrunk(square, size, size) : grown(square, size, size, cubic);
}

function levelled(image, left, top, side, tilt, size) {
  const x = left + side / 2, y = top + side / 2, reach = 0.75 * side;
  const firstX = Math.max(0, Math.trunc(x - reach)), firstY = Math.max(0, Math.trunc(y - reach));
  const endX = Math.min(image.width, Math.trunc(x + reach) + 2);
  const endY = Math.min(image.height, Math.trunc(y + reach) + 2);
  let window = cutOut(image, firstX, firstY, endX - firstX, endY - firstY);
  const whole = Math.max(1, Math.floor(side / (size * FINE)));
  if (whole > 1) {
    const [wide, high] = [window.width, window.height].map(n => Math.max(1, Math.floor(n / whole)));
    window = shrunk(cutOut(window, 0, 0, wide * whole, high * whole), wide, high);
  }
  const centre = [(x - firstX) / whole, (y - firstY) / whole];
  const fine = size * Math.ceil(side / (size * whole));
  const step = side / whole / fine, angle = tilt * Math.PI / 180;
  const along = [step * Math.cos(angle), step * Math.sin(angle)];
  return resizedSquare(turned(window, centre, along, fine, fine > size ? linear : cubic), size);
}

// `size` by `size` samples about `centre`; `along` is the step from one to its right.
function turned(image, [centreX, centreY], [across, down], size, kernel) {
  const found = empty(size, size), half = (size - 1) / 2;
  const firstX = centreX - (across - down) * half - 0.5, firstY = centreY - (across + down) * half - 0.5;
  let to = 0;
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++, to += 3)
      sample(image, kernel(firstX + across * x - down * y), kernel(firstY + down * x + across * y), found.data, to);
  return found;
}

function sample({ data, width, height }, columns, rows, found, to) {
  let red = 0, green = 0, blue = 0;
  for (let j = 0; j < rows.weights.length; j++) {
    const row = within(rows.first + j, height) * width;
    for (let i = 0; i < columns.weights.length; i++) {
      const from = 3 * (row + within(columns.first + i, width)), weight = rows.weights[j] * columns.weights[i];
      red += weight * data[from];
      green += weight * data[from + 1];
      blue += weight * data[from + 2];
    }
  }
  // The array rounds and bounds them.
  found[to] = red;
  found[to + 1] = green;
  found[to + 2] = blue;
}

// ---- resizing: each output line is a weighted sum of neighbouring input lines

function linear(at) {
  const first = Math.floor(at), share = at - first;
  return { first, weights: [1 - share, share] };
}

function cubic(at) {
  const first = Math.floor(at) - 1, x = at - first - 1, a = -0.75;
  const far = d => ((a * d - 5 * a) * d + 8 * a) * d - 4 * a, near = d => ((a + 2) * d - (a + 3)) * d * d + 1;
  const weights = [far(x + 1), near(x), near(1 - x)];
  return { first, weights: [...weights, 1 - weights[0] - weights[1] - weights[2]] };
}

// A smaller image: every pixel is the mean of the area that it covers.
export function shrunk(image, width, height) {
  return weighted(image, areas(image.width, width), areas(image.height, height));
}

function areas(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, place) => {
    const start = place * scale, end = Math.min(start + scale, from), first = Math.floor(start + 1e-3);
    const last = Math.max(first + 1, Math.ceil(end - 1e-3));
    const weights = Array.from({ length: last - first }, (_, i) =>
      (Math.min(first + i + 1, end) - Math.max(first + i, start)) / (end - start));
    return { first, weights };
  });
}

// A larger image, by `linear` or `cubic`.
export function grown(image, width, height, kernel = linear) {
  const lines = (from, to) => Array.from({ length: to }, (_, place) => kernel((place + 0.5) * from / to - 0.5));
  return weighted(image, lines(image.width, width), lines(image.height, height));
}

function weighted(image, columns, rows) {
  const found = empty(columns.length, rows.length), line = new Float32Array(3 * columns.length);
  const flat = flattened(columns, image.width), narrow = new Map(); // rows in their final width, each made once
  let to = 0;
  for (const { first, weights } of rows) {
    line.fill(0);
    for (let j = 0; j < weights.length; j++) {
      const y = within(first + j, image.height), weight = weights[j];
      if (!narrow.has(y)) narrow.set(y, narrowed(image, y, flat));
      const row = narrow.get(y);
      for (let i = 0; i < line.length; i++) line[i] += weight * row[i];
    }
    for (const y of narrow.keys()) if (y < first) narrow.delete(y);
    for (let i = 0; i < line.length; i++) found.data[to++] = line[i];
  }
  return found;
}

// Plain arrays, which the innermost loop reads fast: where each column's places begin, and these.
function flattened(columns, width) {
  const starts = [0], places = [], weights = [];
  for (const column of columns) {
    column.weights.forEach((weight, i) => {
      places.push(within(column.first + i, width));
      weights.push(weight);
    });
    starts.push(places.length);
  }
  return { starts: Int32Array.from(starts), places: Int32Array.from(places), weights: Float32Array.from(weights) };
}

function narrowed({ data, width, height }, y, { starts, places, weights }) {
  const found = new Float32Array(3 * (starts.length - 1)), step = data.length / (width * height);
  for (let x = 0; x + 1 < starts.length; x++) {
    let red = 0, green = 0, blue = 0;
    for (let i = starts[x]; i < starts[x + 1]; i++) {
      const from = step * (y * width + places[i]), weight = weights[i];
      red += weight * data[from];
      green += weight * data[from + 1];
      blue += weight * data[from + 2];
    }
    found[3 * x] = red;
    found[3 * x + 1] = green;
    found[3 * x + 2] = blue;
  }
  return found;
}
