"use strict";
// Marks wrong answers and saves them as a manifest; nothing leaves the page but that file.
// Everything stands in one function, so that the page has no globals.
(() => {
  const about = JSON.parse(document.getElementById("about").textContent);
  const tasks = Object.keys(about.tasks);
  const SAME = "=", UNKNOWN = "?", NO_FACE = "!";
  const memory = `faceattr ${about.key}`;
  // By face and task the class somebody chose, UNKNOWN, or by face NO_FACE.
  let marks = remembered();

  function remembered() {
    try { return JSON.parse(localStorage.getItem(memory)) ?? {}; } catch { return {}; }
  }

  function remember() {
    try { localStorage.setItem(memory, JSON.stringify(marks)); } catch { /* the page works without */ }
  }

  const option = (value, text) => new Option(text, value);

  function menu(task, answer) {
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", `the right ${task}`);
    const others = about.tasks[task].filter((name) => name !== answer);
    // Numbers stand for classes, because a class may be called anything.
    const number = (name) => String(about.tasks[task].indexOf(name));
    choice.append(option(SAME, answer || about.withheld[task]), ...others.map((name) => option(number(name), name)));
    choice.append(option(UNKNOWN, "cannot tell"), option(NO_FACE, "not a face"));
    return choice;
  }

  function mark(face, task, value) {
    if (value === NO_FACE) { marks[face] = NO_FACE; return; }
    const own = marks[face] && marks[face] !== NO_FACE ? marks[face] : {};
    if (value === SAME) delete own[task]; else own[task] = value;
    if (Object.keys(own).length) marks[face] = own; else delete marks[face];
  }

  function valueOf(face, task) {
    return marks[face] === NO_FACE ? NO_FACE : marks[face]?.[task] ?? SAME;
  }

  function show() {
    for (const element of document.querySelectorAll(".face select")) {
      const { face, task } = element.parentElement.dataset;
      element.value = valueOf(face, task);
      element.parentElement.classList.toggle("marked", element.value !== SAME);
    }
    const none = Object.values(marks).filter((own) => own === NO_FACE).length;
    const count = Object.keys(marks).length;
    document.getElementById("count").textContent = `${count - none} corrected, ${none} not a face`;
    document.getElementById("save").disabled = !count && !document.getElementById("all").checked;
  }

  // The manifest

  // A name that is no UTF-8 stands in a manifest as in the table: its odd bytes as \xfc.
  function decoded(text) {
    return text.replace(/(?:%[0-9A-F]{2})+/gi, (run) => {
      try {
        return decodeURIComponent(run);
      } catch {
        return run.replace(/%(..)/g, (_, hex) => {
          const byte = parseInt(hex, 16);
          return byte < 128 ? String.fromCharCode(byte) : "\\x" + hex.toLowerCase();
        });
      }
    });
  }

  function pathOf(link) {
    const isWhole = link.startsWith("file:"); // on another drive than the page
    if (!isWhole && document.getElementById("paths").value === "relative") return decoded(link);
    const url = new URL(link, location);
    const path = decoded(url.pathname).replace(/^\/(?=[A-Za-z]:\/)/, "");
    return url.host ? `//${url.host}${path}` : path;
  }

  function label(face, task, all) {
    const value = valueOf(face, task);
    if (value === UNKNOWN || value === NO_FACE) return "";
    if (value !== SAME) return about.tasks[task][Number(value)];
    const seen = document.querySelector(`[data-face="${face}"][data-task="${CSS.escape(task)}"]`);
    return all && seen ? about.faces[face].answers[task] : "";
  }

  function row(face, all) {
    const status = marks[face] === NO_FACE ? "not a face" : face in marks ? "corrected" : "looked at";
    const own = { path: pathOf(about.faces[face].link), status };
    ["x0", "y0", "x1", "y1"].forEach((name, corner) => { own[name] = about.faces[face].box[corner]; });
    for (const task of tasks) own[task] = label(face, task, all);
    return own;
  }

  function manifest() {
    const all = document.getElementById("all").checked;
    const faces = Object.keys(about.faces).filter((face) => about.faces[face].correctable && (all || face in marks));
    const rows = faces.map((face) => row(face, all));
    // A column without a label would be asked about in vain.
    const labelled = tasks.filter((task) => rows.some((own) => own[task]));
    const columns = ["path", "x0", "y0", "x1", "y1", ...labelled, "status"];
    const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const line = (cells) => cells.map((value) => cell(String(value))).join(",") + "\n";
    return line(columns) + rows.map((own) => line(columns.map((name) => own[name]))).join("");
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([manifest()], { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // The page

  for (const element of document.querySelectorAll(".face")) {
    const { face, task } = element.dataset;
    if (!about.faces[face].correctable) continue;
    const choice = menu(task, about.faces[face].answers[task]);
    choice.addEventListener("change", () => { mark(face, task, choice.value); remember(); show(); });
    element.append(choice);
  }
  const bar = document.getElementById("bar");
  bar.hidden = !document.querySelector(".face select");
  if (location.protocol !== "file:") document.getElementById("paths").value = "relative";
  document.getElementById("all").addEventListener("change", show);
  document.getElementById("clear").addEventListener("click", () => { marks = {}; remember(); show(); });
  bar.addEventListener("submit", (event) => { event.preventDefault(); save(); });
  show();
})();
