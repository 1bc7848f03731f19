// Faces that keep their number from frame to frame, and one smoothed answer for each.

import { overlap } from "./centerface.js";

// Seconds, a share of probability, seconds: as `Smoothing` in faceattr/live/tracking.py.
const TIME_CONSTANT = 0.7, HYSTERESIS = 0.1, MAX_AGE = 1.5;
const SAME = 0.25; // least overlap of a face with where it was expected

export class Tracks {
  constructor(about) {
    this.about = about;
    this.count = 0;
    this.tracks = [];
  }

  // Gives every detected face its track; the best overlaps first.
  update(faces, second) {
    const pairs = this.tracks.flatMap(track => faces.map(face =>
      ({ track, face, share: overlap(expected(track, second), face.box) })));
    const taken = new Set();
    for (const { track, face, share } of pairs.sort((one, other) => other.share - one.share)) {
      if (share < SAME || taken.has(track) || taken.has(face)) continue;
      taken.add(track).add(face);
      follow(track, face, second);
    }
    for (const face of faces)
      if (!taken.has(face)) this.tracks.push({ ...face, number: ++this.count, seen: second, asked: -Infinity, velocity: [0, 0], answers: {} });
    this.tracks = this.tracks.filter(track => second - track.seen <= MAX_AGE);
  }

  // Those seen in this frame that are large enough to be asked about, the longest unasked first.
  due(second) {
    const large = ({ box }) => sideOf(box) >= this.about.min_face;
    return this.tracks.filter(track => track.seen === second && large(track)).sort((one, other) => one.asked - other.asked);
  }

  answer(track, probabilities, second) {
    const share = 1 - Math.exp(-(second - track.asked) / TIME_CONSTANT);
    for (const { name, classes } of this.about.tasks)
      track.answers[name] = smoothed(track.answers[name], probabilities[name], classes, share);
    track.asked = second;
  }

  // What the page draws.
  result(second) {
    const shown = this.tracks.filter(track => track.seen === second);
    const lost = this.tracks.filter(track => track.seen !== second).map(track => expected(track, second));
    return { faces: shown.map(track => this.described(track)), lost };
  }

  described({ number, box, velocity, score, answers }) {
    const nothing = { label: null, probability: null, probabilities: {} };
    const given = this.about.tasks.map(({ name }) => [name, answers[name] ?? nothing]);
    const small = sideOf(box) < this.about.min_face;
    return { track: number, box, velocity, detection: score, too_small: small, answers: Object.fromEntries(given) };
  }
}

const sideOf = ([x0, y0, x1, y1]) => Math.max(x1 - x0, y1 - y0);

function expected({ box, velocity, seen }, second) {
  const [x, y] = velocity.map(speed => speed * (second - seen));
  return [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
}

function follow(track, face, second) {
  const elapsed = Math.max(second - track.seen, 1e-3);
  const moved = [0, 1].map(i => (face.box[i] + face.box[i + 2] - track.box[i] - track.box[i + 2]) / 2 / elapsed);
  const velocity = track.velocity.map((speed, i) => 0.5 * speed + 0.5 * moved[i]);
  Object.assign(track, face, { velocity, seen: second });
}

// The first answer counts alone; later ones move the average, and a class has to lead clearly.
function smoothed(before, fresh, classes, share) {
  const past = before && classes.map(name => before.probabilities[name]);
  const mean = fresh.map((p, i) => past ? past[i] + share * (p - past[i]) : p);
  const best = mean.indexOf(Math.max(...mean)), held = before ? classes.indexOf(before.label) : best;
  const shown = mean[best] > mean[held] + HYSTERESIS ? best : held;
  const probabilities = Object.fromEntries(classes.map((name, i) => [name, mean[i]]));
  return { label: classes[shown], probability: mean[shown], probabilities };
}
