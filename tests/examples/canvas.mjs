// node canvas.mjs FOLDER MANIFEST: the page's app.js, beside a runtimes.js that keeps what it is
// given and fails, on a canvas that blends; prints as JSON the least and the largest value that a
// black photo and then a transparent one of the same size give.
import {readFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const [folder, manifest] = process.argv.slice(2);
const WIDTH = 640, HEIGHT = 480;
const photo = (...rgba) => ({width: WIDTH, height: HEIGHT, rgba});

class Context {
  data = new Uint8ClampedArray(WIDTH * HEIGHT * 4);
  fillStyle = "#000";
  blend([...rgb], alpha) {
    for (let at = 0; at < this.data.length; at += 4) {
      for (let i = 0; i < 3; i++) {
        this.data[at + i] = (rgb[i] * alpha + this.data[at + i] * (255 - alpha)) / 255;
      }
      this.data[at + 3] = Math.max(this.data[at + 3], alpha);
    }
  }
  drawImage({rgba}) { this.blend(rgba.slice(0, 3), rgba[3]); }
  fillRect(x, y, width, height) {
    if (x || y || width !== WIDTH || height !== HEIGHT) throw new Error("not the whole canvas");
    this.blend([...this.fillStyle.slice(1)].map((digit) => 17 * parseInt(digit, 16)), 255);
  }
  getImageData() { return {data: this.data}; }
}

const elements = {};
const context = new Context();
const made = () => ({
  value: "0.5", previousElementSibling: {}, add() {}, addEventListener() {},
  getContext: () => context,
});
Object.assign(globalThis, {
  document: {getElementById: (id) => elements[id] ??= made()},
  window: globalThis, Option: class {}, tensors: [],
  fetch: async (url) => ({
    ok: true,
    json: async () => url === "models.json" ? ["one"] : JSON.parse(readFileSync(manifest)),
  }),
  createImageBitmap: async (file) => file,
});
console.error = () => {};
const until = async (true_) => { while (!true_()) await new Promise((go) => setTimeout(go, 5)); };

await import(pathToFileURL(`${folder}/app.js`));
await until(() => elements.status?.textContent?.endsWith("ready"));
for (const file of [photo(0, 0, 0, 255), photo(0, 0, 0, 0)]) {
  const before = tensors.length;
  elements.photo.onchange({target: {files: [file]}});
  await until(() => tensors.length > before);
}
const least = (values) => values.reduce((a, b) => Math.min(a, b));
const most = (values) => values.reduce((a, b) => Math.max(a, b));
console.log(JSON.stringify(tensors.map((tensor) => [least(tensor), most(tensor)])));
