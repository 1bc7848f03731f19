"use strict";
// What is drawn over a frame: boxes, answers, bars. Boxes are in pixels of the canvas.

const PLATE = "rgba(14, 16, 20, 0.72)", DIM = "#babec6", WHITE = "#ffffff";

function drawFaces(pen, faces, view, colours) {
  const unit = Math.min(pen.canvas.width, pen.canvas.height) / 720;
  for (const face of faces) frameFace(pen, face, unit, colourOf(face, colours));
  for (const face of faces) {
    if (face.too_small) continue;
    const size = letters(face, unit);
    if (view.bars) drawBars(pen, face, size * 0.8, colourOf(face, colours));
    else drawAnswers(pen, face, size, colourOf(face, colours));
  }
}

function colourOf(face, colours) {
  return face.too_small ? "#aaaaaa" : colours[(face.track - 1) % colours.length];
}

function letters(face, unit) {
  const smallest = Math.max(12, 20 * unit);
  const side = Math.max(face.box[2] - face.box[0], face.box[3] - face.box[1]);
  return Math.round(Math.min(Math.max(smallest, side / 8), 2 * smallest));
}

function frameFace(pen, face, unit, colour) {
  const [x0, y0, x1, y1] = face.box, arm = (x1 - x0) / 5;
  const thin = Math.max(1, 2 * unit), strong = Math.max(2, Math.min(6 * unit, (x1 - x0) / 20));
  for (const [shade, casing] of [["#0e1014", 2], [colour, 0]]) {
    pen.strokeStyle = shade;
    pen.lineWidth = thin + casing;
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    pen.lineWidth = strong + casing;
    pen.lineJoin = pen.lineCap = "round";
    for (const [x, across] of [[x0, arm], [x1, -arm]])
      for (const [y, down] of [[y0, arm], [y1, -arm]]) {
        pen.beginPath();
        pen.moveTo(x + across, y);
        pen.lineTo(x, y);
        pen.lineTo(x, y + down);
        pen.stroke();
      }
  }
}

function wordsOf(task, answer) {
  if (answer.probability === null) return `${task} …`;
  if (answer.label === null) return `${task} unsure`;
  return `${answer.label} ${Math.round(100 * answer.probability)} %`;
}

function plate(pen, x, y, width, height) {
  x = Math.max(0, Math.min(x, pen.canvas.width - width));
  y = Math.max(0, Math.min(y, pen.canvas.height - height));
  pen.fillStyle = PLATE;
  pen.beginPath();
  pen.roundRect(x, y, width, height, 6);
  pen.fill();
  return [x, y];
}

function drawAnswers(pen, face, size, colour) {
  const lines = Object.entries(face.answers).map(([task, answer]) => wordsOf(task, answer));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  const number = `${face.track}  `, pad = 0.45 * size;
  const widths = lines.map((line, row) => pen.measureText(row ? line : number + line).width);
  const width = Math.max(...widths) + 2 * pad, height = 1.3 * size * lines.length + 2 * pad;
  const below = face.box[3] + size / 2;
  const top = below + height <= pen.canvas.height ? below : face.box[1] - height - size / 2;
  const [x, y] = plate(pen, face.box[0], top, width, height);
  lines.forEach((line, row) => {
    let left = x + pad;
    const base = y + pad + size + 1.3 * size * row;
    if (row === 0) {
      pen.fillStyle = colour;
      pen.fillText(String(face.track), left, base);
      left += pen.measureText(number).width;
    }
    pen.fillStyle = row ? DIM : WHITE;
    pen.fillText(line, left, base);
  });
}

function drawBars(pen, face, size, colour) {
  const rows = [];
  for (const answer of Object.values(face.answers)) {
    if (rows.length) rows.push(null);
    for (const [name, p] of Object.entries(answer.probabilities))
      rows.push({ name, p, isShown: name === answer.label });
  }
  pen.font = `500 ${size}px system-ui, sans-serif`;
  const pad = 0.6 * size, step = 1.4 * size, bar = 6 * size;
  const names = Math.max(4 * size, ...rows.map(row => row ? pen.measureText(row.name).width : 0));
  const width = names + bar + 3.4 * size + 3 * pad, height = step * (rows.length + 1) + 2 * pad;
  const right = face.box[2] + size / 2;
  const left = right + width <= pen.canvas.width ? right : face.box[0] - width - size / 2;
  const [x, y] = plate(pen, left, face.box[1], width, height);
  pen.fillStyle = colour;
  pen.fillText(String(face.track), x + pad, y + pad + size);
  rows.forEach((row, index) => {
    if (!row) return;
    const base = y + pad + size + step * (index + 1), start = x + names + 2 * pad;
    pen.fillStyle = row.isShown ? WHITE : DIM;
    pen.fillText(row.name, x + pad, base);
    pen.fillStyle = "#464a52";
    pen.fillRect(start, base - 0.65 * size, bar, 0.65 * size);
    pen.fillStyle = row.isShown ? colour : "#aaaaaa";
    pen.fillRect(start, base - 0.65 * size, bar * row.p, 0.65 * size);
    pen.fillStyle = DIM;
    const text = `${Math.round(100 * row.p)} %`;
    pen.fillText(text, x + width - pad - pen.measureText(text).width, base);
  });
}

function blurFaces(pen, boxes, source) {
  // A few coarse squares, drawn without smoothing: nothing of the face can be won back.
  const few = blurFaces.few ??= new OffscreenCanvas(7, 8);
  for (const [x0, y0, x1, y1] of boxes) {
    const grow = 0.2 * Math.max(x1 - x0, y1 - y0);
    const [left, top] = [Math.max(0, x0 - grow), Math.max(0, y0 - 1.5 * grow)];
    const width = x1 + grow - left, height = y1 + grow - top;
    few.getContext("2d").drawImage(source, left, top, width, height, 0, 0, 7, 8);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(few, 0, 0, 7, 8, left, top, width, height);
    pen.imageSmoothingEnabled = true;
  }
}
