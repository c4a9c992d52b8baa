// node missing.mjs FOLDER [MODELS]: what the page of app.js says where the server has models.json
// alone, with MODELS in it, or nothing at all.
import {pathToFileURL} from "node:url";

const [folder, models] = process.argv.slice(2);
const elements = {};
const made = () => ({previousElementSibling: {}, add() {}, addEventListener() {}, getContext() {}});
Object.assign(globalThis, {
  document: {getElementById: (id) => elements[id] ??= made()}, Option: class {},
  fetch: async (url) => new Response(models && url === "models.json" ? models : "<html>",
                                     {status: models && url === "models.json" ? 200 : 404}),
});
console.error = () => {};
await import(pathToFileURL(`${folder}/app.js`));
while (!elements.status?.textContent?.startsWith("error")) {
  await new Promise((go) => setTimeout(go, 5));
}
console.log(elements.status.textContent);
