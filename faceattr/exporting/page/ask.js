"use strict";
// Frames go to a worker of this page and come back as faces: nothing leaves the browser.

const asker = {
  async begin() {
    if (location.protocol === "file:")
      return say("Browsers open a model only from a web server: `python -m http.server` in this folder is one.");
    // Named by their contents, so that what the browser kept of another page is not taken for them.
    const { about, mark } = document.body.dataset;
    const answer = await fetch(about);
    if (!answer.ok) return say("This page has been replaced by a newer one: reload it.");
    state.about = await answer.json();
    // A worker that a page starts from a blob keeps to the page's Content-Security-Policy.
    const code = `import ${JSON.stringify(new URL(`worker.js?v=${mark}`, document.baseURI).href)};`;
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(address, { type: "module" });
    this.worker.onmessage = ({ data }) => hear(data);
    this.worker.onerror = () => say("This browser is too old for the model: it needs module workers (2023 or later).");
    this.worker.postMessage({ about: state.about });
  },

  isReady() { return !!state.isReady; },

  forget() { if (state.isReady) this.worker.postMessage({ forget: true }); },

  ask(canvas, second) {
    const { data, width, height } = paper.getImageData(0, 0, canvas.width, canvas.height);
    const isStill = state.source instanceof ImageBitmap;
    this.worker.postMessage({ image: { data, width, height }, second, isStill }, [data.buffer]);
  },
};

function hear({ answer, error, isReady, loaded, total }) {
  const bar = byId("progress");
  if (total) {
    bar.value = loaded / total;
    say(`Loading the model: ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`);
  }
  if (isReady) {
    bar.hidden = state.isReady = true;
    say("");
  }
  if (answer || state.isWaiting && error) take(answer ?? { error });
  else if (error) say(`The model cannot be opened here: ${error}`);
}
