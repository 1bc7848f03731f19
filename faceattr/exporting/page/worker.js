// What looks at frames, beside the page, so that the page never waits.

import { crop } from "./crop.js";
import { openNetworks } from "./model.js";
import { Tracks } from "./tracks.js";

const MOST_ASKED = 4; // faces of one frame of a moving picture; the others follow with the next
let about, networks, tracks, number = 0;

self.onmessage = async ({ data: message }) => {
  try {
    if (message.about) await open(message.about);
    else if (message.forget) begin();
    else self.postMessage({ answer: await look(message) });
  } catch (error) {
    self.postMessage({ error: String(error.message ?? error) });
  }
};

async function open(given) {
  about = given;
  networks = await openNetworks(about, (loaded, total) => self.postMessage({ loaded, total }));
  begin();
  self.postMessage({ isReady: true });
}

function begin() {
  [tracks, number] = [new Tracks(about), 0];
}

async function look({ image, second, isStill }) {
  const started = performance.now();
  tracks.update(await networks.detect(image), second);
  const asked = tracks.due(second).slice(0, isStill ? undefined : MOST_ASKED);
  const answers = await answersTo(asked.map(({ box, landmarks }) => crop(image, box, about.crop, landmarks)));
  asked.forEach((track, i) => tracks.answer(track, answers[i], second));
  return { time: second, frame: number++, milliseconds: performance.now() - started, ...tracks.result(second) };
}

async function answersTo(crops) {
  const found = [];
  for (const { data } of crops) found.push(...await networks.predict(new Uint8Array(data), 1));
  return found;
}
