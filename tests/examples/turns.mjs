// node turns.mjs FOLDER MANIFEST: the page's app.js, beside a runtimes.js that takes its time and
// finds a face in all photos, on a canvas that notes what is drawn; prints that as JSON for two
// photos, the second chosen while the first is computed. Then a model is chosen that cannot be
// opened; prints which one is named after that.
import {readFileSync} from "node:fs";
import {pathToFileURL} from "node:url";

const [folder, manifest] = process.argv.slice(2);
const drawn = [];
const context = {
  drawImage: ({name}) => drawn.push(name), strokeRect: () => drawn.push("box"),
  fillRect() {}, beginPath() {}, arc() {}, fill() {},
  getImageData: (x, y, width, height) => ({data: new Uint8ClampedArray(4 * width * height)}),
};
const elements = {};
const made = () => ({
  value: "0.5", previousElementSibling: {}, add() {}, addEventListener() {},
  getContext: () => context,
});
Object.assign(globalThis, {
  document: {getElementById: (id) => elements[id] ??= made()},
  window: globalThis, Option: class {},
  fetch: async (url) => ({
    ok: !url.startsWith("models/broken/"),
    json: async () => url === "models.json" ? ["one"] : JSON.parse(readFileSync(manifest)),
  }),
  createImageBitmap: async (file) => file,
});
const until = async (true_) => { while (!true_()) await new Promise((go) => setTimeout(go, 5)); };

await import(pathToFileURL(`${folder}/app.js`));
await until(() => elements.status?.textContent?.endsWith("ready"));
for (const name of ["first", "second"]) {
  elements.photo.onchange({target: {files: [{name, width: 64, height: 64}]}});
  await until(() => drawn.includes("first"));
}
await until(() => drawn.filter((what) => what === "box").length === 2);
console.error = () => {};
elements.model.value = "broken";
elements.model.onchange({target: elements.model});
await until(() => elements.status.textContent.startsWith("error"));
console.log(JSON.stringify([...drawn, elements.model.value]));
