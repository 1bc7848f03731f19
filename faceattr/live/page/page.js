"use strict";
// One frame is under way at a time: given away, looked at, answered; then the newest one follows.
// What is shown is the newest frame with the newest answer, so the picture never waits. Who looks at
// frames is `asker`: faceattr behind a websocket (socket.js), or a model in the browser itself.

const byId = id => document.getElementById(id);
const [canvas, video, stage] = ["canvas", "video", "stage"].map(byId);
const pen = canvas.getContext("2d"), sending = document.createElement("canvas");
const paper = sending.getContext("2d", { willReadFrequently: true });
const ROWS_IN_MEMORY = 10000, LARGEST_STILL = 1920;
const state = {
  about: null, source: null, stream: null, answer: null, answeredFrame: null,
  isWaiting: false, isPaused: false, sentAt: 0, rows: [], shown: [], answered: [], delay: 0,
  turn: 0, // of the source: what was waited for in an older one comes too late
};
window.faceattr = state; // for tests

function say(text) { byId("message").textContent = text; }

function take(answer) {
  state.isWaiting = false;
  if (answer.error) return say(answer.error);
  if (state.isStale) { state.isStale = false; return; }
  const scale = canvas.width / sending.width;
  for (const face of answer.faces) {
    face.box = face.box.map(value => value * scale);
    face.velocity = face.velocity.map(value => value * scale);
  }
  answer.sentAt = state.sentAt;
  answer.lost = answer.lost.map(box => box.map(value => value * scale));
  state.answer = answer;
  state.delay = 0.8 * state.delay + 0.2 * (performance.now() - state.sentAt);
  count(state.answered);
  keepRows(answer);
  if (state.source instanceof ImageBitmap) {
    // A picture is asked about until every face has its answer.
    if (answer.faces.every(face => face.too_small || Object.values(face.answers).every(a => a.probability !== null)))
      state.isStill = true;
  }
}

function cell(value) {
  // A table is opened in a spreadsheet: a text must not pass for a formula, nor a comma for a border.
  const isFormula = typeof value === "string" && /^[=+\-@\t\r]/.test(value) && isNaN(value);
  const text = (isFormula ? "'" : "") + value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function keepRows(answer) {
  for (const face of answer.faces) {
    const row = [answer.time.toFixed(3), answer.frame, face.track,
      ...face.box.map(value => value.toFixed(1)), face.detection];
    for (const task of state.about.tasks) {
      const given = face.answers[task.name];
      row.push(given.label ?? "", given.probability?.toFixed(4) ?? "");
      for (const name of task.classes) row.push(given.probabilities[name] ?? "");
    }
    state.rows.push(row.map(cell).join(",") + "\n");
  }
  // What a blob holds, the browser may keep on disk: hours of rows cost little memory.
  if (state.rows.length >= ROWS_IN_MEMORY) state.rows = [new Blob(state.rows)];
  byId("table").disabled = !state.rows.length;
}

// ---- sources

function open(source, width, height) {
  if (state.isWaiting) state.isStale = true; // the answer under way is about the last source
  Object.assign(state, { source, answer: null, rows: [], isStill: false, isPaused: false, startedAt: performance.now() });
  fit(width, height);
  canvas.classList.add("shown");
  byId("hint").hidden = true;
  for (const id of ["pause", "snapshot"]) byId(id).disabled = false;
  byId("pause").textContent = "Pause";
  asker.forget();
}

function fit(width, height) {
  [canvas.width, canvas.height] = [width, height];
  const isStill = state.source instanceof ImageBitmap;
  const { largest_still: largest = LARGEST_STILL, long_side: longSide = LARGEST_STILL } = state.about ?? {};
  const most = isStill ? largest : longSide;
  const share = Math.min(1, most / Math.max(width, height));
  [sending.width, sending.height] = [width, height].map(side => Math.max(1, Math.round(side * share)));
}

// A phone that is turned gives upright frames from then on.
video.onresize = () => {
  if (state.source !== video || !video.videoWidth) return;
  state.isStale = state.isWaiting;
  state.answer = null;
  fit(video.videoWidth, video.videoHeight);
};

function closeSource() {
  state.turn++;
  stopTracks(state.stream);
  if (state.url) URL.revokeObjectURL(state.url);
  Object.assign(state, { stream: null, url: null, source: null });
  video.pause();
  video.srcObject = null;
  video.removeAttribute("src");
  byId("camera").textContent = "Start camera";
}

function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

async function startCamera() {
  if (!navigator.mediaDevices)
    return say("Browsers give the camera only to pages of this machine (localhost) or over https.");
  const { turn } = state;
  try {
    const wished = { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" };
    const stream = await navigator.mediaDevices.getUserMedia({ video: wished });
    if (turn !== state.turn) return stopTracks(stream);
    state.stream = stream; // from here on `closeSource` stops it
    stream.getVideoTracks()[0].onended = () => { closeSource(); say("The camera was unplugged."); };
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (turn !== state.turn) return;
    closeSource();
    return say(`The camera cannot be used: ${error.message}`);
  }
  if (turn !== state.turn) return;
  open(video, video.videoWidth, video.videoHeight);
  byId("camera").textContent = "Stop camera";
}

async function openFile(file) {
  closeSource();
  const { turn } = state;
  say("");
  try {
    if (file.type.startsWith("image/")) {
      const picture = await createImageBitmap(file);
      if (turn === state.turn) open(picture, picture.width, picture.height);
    } else if (file.type.startsWith("video/")) {
      state.url = URL.createObjectURL(file);
      video.src = state.url;
      video.loop = false;
      await video.play();
      if (turn === state.turn) openVideo(file.name);
    } else {
      say(`${file.name} is neither a picture nor a video.`);
    }
  } catch {
    if (turn === state.turn) say(`${file.name} is nothing that this browser can show.`);
  }
}

function openVideo(name) {
  if (video.videoWidth) return open(video, video.videoWidth, video.videoHeight);
  closeSource(); // it is sound alone
  say(`${name} has no pictures.`);
}

// ---- the loop

function tick() {
  requestAnimationFrame(tick);
  const { source } = state;
  if (!source || !state.about || state.isPaused || (source === video && video.readyState < 2)) return;
  send();
  draw();
  count(state.shown);
  byId("figures").textContent = figures();
}

function figures() {
  const { answer, source, about } = state, count = answer?.faces.length;
  if (source instanceof ImageBitmap) return answer ? `${count} ${count === 1 ? "face" : "faces"} · ${about.detector}` : "";
  return `${rate(state.shown)} frames/s · ${rate(state.answered)} looks/s · `
    + `answers ${Math.round(state.delay)} ms · ${about.detector}`;
}

function send() {
  if (state.isWaiting || state.isStill || (state.source === video && video.ended)) return;
  if (!asker.isReady()) return;
  state.isWaiting = true;
  const isFile = state.source === video && !state.stream;
  const second = isFile ? video.currentTime : (performance.now() - state.startedAt) / 1000;
  paint(paper, sending.width, sending.height);
  state.sentAt = performance.now();
  asker.ask(sending, second);
}

// What is transparent is white, as for `load_image`.
function paint(pen, width, height) {
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(state.source, 0, 0, width, height);
}

function draw() {
  const isMirrored = byId("mirror").checked, width = canvas.width;
  const flip = ([x0, y0, x1, y1]) => isMirrored ? [width - x1, y0, width - x0, y1] : [x0, y0, x1, y1];
  pen.save();
  if (isMirrored) { pen.translate(width, 0); pen.scale(-1, 1); }
  paint(pen, width, canvas.height);
  pen.restore();
  if (!state.answer) {
    // Nobody knows yet where a face is.
    if (byId("blur").checked) blurFaces(pen, [[0, 0, width, canvas.height]], canvas);
    return;
  }
  const faces = state.answer.faces.map(face => ({ ...face, box: flip(movedOn(face)) }));
  const lost = state.answer.lost.map(flip);
  if (byId("blur").checked) blurFaces(pen, [...faces.map(face => face.box), ...lost], canvas);
  drawFaces(pen, faces, { bars: byId("bars").checked }, state.about.colours);
}

// Where a face is by now if it went on as before; still pictures have no velocity.
function movedOn(face) {
  const elapsed = Math.min(0.3, (performance.now() - state.answer.sentAt) / 1000);
  const isMoving = state.source === video && !video.paused && !video.ended;
  const [x, y] = face.velocity.map(speed => isMoving ? speed * elapsed : 0);
  const [x0, y0, x1, y1] = face.box;
  return [x0 + x, y0 + y, x1 + x, y1 + y];
}

function count(moments) {
  const now = performance.now();
  moments.push(now);
  while (now - moments[0] > 2000) moments.shift();
}

function rate(moments) {
  const span = moments.length > 1 ? moments[moments.length - 1] - moments[0] : 0;
  return span ? Math.round(1000 * (moments.length - 1) / span) : 0;
}

// ---- buttons

function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

byId("camera").onclick = () => {
  const wasOn = state.stream;
  closeSource();
  if (!wasOn) startCamera();
};
byId("file").onchange = event => { if (event.target.files[0]) openFile(event.target.files[0]); event.target.value = ""; };
byId("pause").onclick = () => {
  state.isPaused = !state.isPaused;
  byId("pause").textContent = state.isPaused ? "Go on" : "Pause";
  if (state.source === video && !state.stream) state.isPaused ? video.pause() : video.play();
};
byId("snapshot").onclick = () => canvas.toBlob(blob => download("faceattr.png", blob));
byId("table").onclick = () => {
  const heading = state.about.columns.map(cell).join(",") + "\n";
  download("faceattr.csv", new Blob([heading, ...state.rows], { type: "text/csv" }));
};
stage.ondragover = event => { event.preventDefault(); stage.classList.add("over"); };
stage.ondragleave = () => stage.classList.remove("over");
stage.ondrop = event => {
  event.preventDefault();
  stage.classList.remove("over");
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
};
document.onkeydown = event => {
  const keys = { b: "bars", p: "blur", m: "mirror", s: "snapshot", " ": "pause" };
  if (event.target.matches("input, button, .button") && event.key === " ") return;
  const id = keys[event.key];
  if (id && !byId(id).disabled && !event.ctrlKey && !event.metaKey) { event.preventDefault(); byId(id).click(); }
};

asker.begin().then(() => {
  for (const look of state.about?.looks ?? []) byId(look).checked = true;
});
requestAnimationFrame(tick);
