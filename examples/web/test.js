// node test.js [folder of vectors]: the decoder gives what the golden vectors say.
import {readFileSync, readdirSync} from "node:fs";
import {fileURLToPath} from "node:url";
import {Decoder} from "./decoder.js";

const folder = process.argv[2] ?? fileURLToPath(new URL("../vectors", import.meta.url));
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const floats = {float32: Float32Array, int8: Int8Array};
const typed = (text, dtype) => new floats[dtype](bytes(text).buffer);
let checked = 0;

function expect(what, found, wanted, most) {
  const [a, b] = [found, wanted].map((v) => v.flat(Infinity));
  const apart = a.length === b.length ? Math.max(0, ...a.map((v, i) => Math.abs(v - b[i]))) : Infinity;
  if (!(apart <= most)) throw new Error(`${what}: ${apart} apart, at most ${most} is right`);
  checked++;
}

function check(name, test) {
  const decoder = new Decoder(test);
  const [width, height] = test.photo;
  const fit = decoder.fit(width, height);
  expect(`${name}: fit`, [fit.width, fit.height, fit.canvasWidth, fit.canvasHeight],
         [...test.fitted, ...test.canvas], 0);
  if (test.pixels) {
    const canvas = decoder.letterbox(bytes(test.rgb), width, height, 3);
    expect(`${name}: pixels`, [...canvas], [...bytes(test.pixels)], 0);
    expect(`${name}: tensor`, [...decoder.tensor(canvas)], [...canvas], 0);
  }
  if (test.faces) {
    const outputs = test.outputs.map((text, i) => typed(text, test.contract.outputs[i].dtype));
    const faces = decoder.decode(outputs, width, height);
    expect(`${name}: scores`, faces.map((f) => f.score), test.faces.map((f) => f.score), 1e-4);
    expect(`${name}: boxes`, faces.map((f) => f.box), test.faces.map((f) => f.box), 0.05);
    const points = (f) => f.landmarks ?? [];
    expect(`${name}: landmarks`, faces.map(points), test.faces.map(points), 0.05);
  }
}

const files = readdirSync(folder).filter((file) => file.endsWith(".json"));
if (!files.length) throw new Error(`no vectors in ${folder}`);
for (const file of files) {
  for (const test of JSON.parse(readFileSync(`${folder}/${file}`, "utf8"))) {
    check(`${file}, ${test.name}`, test);
  }
}
console.log(`JavaScript: ${checked} checks passed`);
