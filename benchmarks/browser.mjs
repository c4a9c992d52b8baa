// node browser.mjs CONFIG: for each number on stdin, the ms of so many passes of a file in a browser,
// as JSON. CONFIG: {playwright, chromium, address, model}; address serves examples/web, whose
// page knows where LiteRT.js is.
import {createRequire} from "node:module";
import {createInterface} from "node:readline";

const config = JSON.parse(process.argv[2]);
const {chromium} = createRequire(import.meta.url)(config.playwright);
const browser = await chromium.launch(
  {executablePath: config.chromium, args: ["--no-sandbox", "--disable-gpu"]});
const page = await browser.newPage();
await page.goto(config.address);
await page.evaluate(async (url) => {
  const {loadLiteRt, loadAndCompile, Tensor} = await import("@litertjs/core");
  await loadLiteRt("/node_modules/@litertjs/core/wasm/");
  const model = await loadAndCompile(url, {accelerator: "wasm"});
  const [{shape}] = model.getInputDetails(), size = shape.reduce((a, b) => a * b);
  const photo = Float32Array.from({length: size}, () => Math.floor(256 * Math.random()));
  window.pass = async () => {
    const input = new Tensor(photo, [...shape]), outputs = await model.run([input]);
    const found = await Promise.all(outputs.map((output) => output.data()));
    for (const tensor of [input, ...outputs]) tensor.delete();
    return found;
  };
}, config.model);
for await (const line of createInterface({input: process.stdin})) {
  const spent = await page.evaluate(async (count) => {
    const spent = [];
    for (let i = 0; i < count; i++) {
      const start = performance.now();
      await window.pass();
      spent.push(performance.now() - start);
    }
    return spent;
  }, Number(line));
  console.log(JSON.stringify(spent));
}
await browser.close();
