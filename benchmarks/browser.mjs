// node browser.mjs CONFIG: for each number on stdin, the ms of so many passes of a file in a browser,
// as JSON. CONFIG: {playwright, chromium, address, model}; address serves examples/web.
import {createRequire} from "node:module";
import {createInterface} from "node:readline";

const config = JSON.parse(process.argv[2]);
const {chromium} = createRequire(import.meta.url)(config.playwright);
const browser = await chromium.launch(
  {executablePath: config.chromium, args: ["--no-sandbox", "--disable-gpu"]});
const page = await browser.newPage();
await page.goto(config.address);
await page.evaluate(async (folder) => {
  const {open} = await import("/runtimes.js"), {Decoder} = await import("/decoder.js");
  const manifest = await (await fetch(`${folder}/manifest.json`)).json();
  const decoder = new Decoder(manifest), [, height, width] = manifest.contract.input.shape;
  const runtime = await open(manifest, `${folder}/${manifest.primary}`);
  const canvas = Uint8ClampedArray.from({length: 3 * width * height}, () => 256 * Math.random());
  const tensor = decoder.tensor(canvas), fit = decoder.fit(width, height);
  window.pass = () => runtime.run(tensor, fit);
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
