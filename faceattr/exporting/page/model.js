// The two networks in ONNX Runtime Web: faces out of an image, probabilities out of crops.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { facesOf, OUTPUTS, prepared } from "./centerface.js";

const MOST_THREADS = 4;

// Opens both. `progress` is told how many bytes are here, of how many.
export async function openNetworks(about, progress = () => {}) {
  const { runtime, model, detector } = about.files;
  const total = runtime.bytes + model.bytes + detector.bytes;
  let loaded = 0;
  const load = ({ name }) => unpacked(new URL(name, import.meta.url), more => progress(loaded += more, total));
  const [engine, network, finder] = await Promise.all([runtime, model, detector].map(load));
  ort.env.wasm.wasmBinary = engine;
  // Threads share memory, which browsers give only to sites with two special headers.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  return networks(about, await session(network), await session(finder));
}

// Weights are stored in fewer bits: this lets them become floats once, when the file is opened.
function session(bytes) {
  const extra = { session: { disable_quant_qdq: "1" } };
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], graphOptimizationLevel: "all", logSeverityLevel: 3, extra });
}

function networks(about, network, finder) {
  return {
    // Faces of an image { data, width, height }, from left to right.
    async detect(image) {
      const ready = prepared(image, about.detector_long_side);
      const input = new ort.Tensor("float32", ready.input, [1, 3, ready.high, ready.wide]);
      const answers = await finder.run({ [finder.inputNames[0]]: input });
      const maps = Object.fromEntries(Object.entries(OUTPUTS).map(([word, name]) => [word, answers[name].data]));
      return facesOf(maps, ready, about.detector_threshold);
    },

    // By task, the probabilities of each of `count` crops, whose RGB bytes follow each other.
    async predict(crops, count) {
      if (!count) return [];
      const { size } = about.crop;
      const answers = await network.run({ crops: new ort.Tensor("uint8", crops, [count, size, size, 3]) });
      return Array.from({ length: count }, (_, row) => Object.fromEntries(about.tasks.map(({ name, classes }) =>
        [name, [...answers[name].data.subarray(row * classes.length, (row + 1) * classes.length)]])));
    },
  };
}

// A file's bytes; servers that know of .gz may have unpacked it already.
async function unpacked(address, progress) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address.pathname} is not there (${answer.status})`);
  const packed = new Blob(await blocksOf(answer.body, progress));
  const [first, second] = new Uint8Array(await packed.slice(0, 2).arrayBuffer());
  const isPacked = first === 0x1f && second === 0x8b;
  const plain = isPacked ? packed.stream().pipeThrough(new DecompressionStream("gzip")) : packed.stream();
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

async function blocksOf(stream, progress) {
  const blocks = [], reader = stream.getReader();
  for (let block = await reader.read(); !block.done; block = await reader.read()) {
    blocks.push(block.value);
    progress(block.value.length);
  }
  return blocks;
}
