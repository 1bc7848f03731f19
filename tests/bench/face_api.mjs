// What @vladmandic/face-api says of faces: node face_api.mjs FACES.raw SIDE ANSWERS.json
//
// FACES.raw holds RGB bytes, SIDE x SIDE pixels a face. Run where the packages of face_api.py are
// installed. Answers are probabilities by class, a list for each task.
import fs from 'fs';
import { createRequire } from 'module';

const require = createRequire(`${process.cwd()}/`);
const wasm = require('@tensorflow/tfjs-backend-wasm');
const faceapi = require('@vladmandic/face-api/dist/face-api.node-wasm.js');

const [faces, side, output] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
wasm.setWasmPaths(`${process.cwd()}/node_modules/@tensorflow/tfjs-backend-wasm/dist/`);
await faceapi.tf.setBackend('wasm');
await faceapi.tf.ready();
const models = `${process.cwd()}/node_modules/@vladmandic/face-api/model`;
await faceapi.nets.faceExpressionNet.loadFromDisk(models);
await faceapi.nets.ageGenderNet.loadFromDisk(models);

const bytes = fs.readFileSync(faces);
const length = side * side * 3;
const answers = { expression: [], gender: [] };
for (let start = 0; start < bytes.length; start += length) {
  const face = faceapi.tf.tensor3d(bytes.subarray(start, start + length), [side, side, 3], 'int32');
  const { neutral, happy, sad, angry, fearful, disgusted, surprised } =
    await faceapi.nets.faceExpressionNet.predictExpressions(face);
  answers.expression.push([angry, disgusted, fearful, happy, neutral, sad, surprised]);
  const { gender, genderProbability } = await faceapi.nets.ageGenderNet.predictAgeAndGender(face);
  const male = gender === 'male' ? genderProbability : 1 - genderProbability;
  answers.gender.push([male, 1 - male]);
  face.dispose();
}
fs.writeFileSync(output, JSON.stringify(answers));
