// node page.mjs CONFIG: opens the page in Chromium with a photo and with a fake camera, and prints
// what it found as JSON. CONFIG: {playwright, chromium, address, models, photo, camera, shots}.
import {createRequire} from "node:module";

const config = JSON.parse(process.argv[2]);
const {chromium} = createRequire(import.meta.url)(config.playwright);
const browser = await chromium.launch({
  executablePath: config.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream",
         "--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${config.camera}`],
});
const page = await (await browser.newContext({viewport: {width: 900, height: 800}})).newPage();
const requests = [], errors = [];
page.on("request", (request) => requests.push(request.url()));
page.on("pageerror", (error) => errors.push(String(error)));
const status = (text) => page.waitForFunction(
  (wanted) => document.getElementById("status").textContent.match(wanted), text, {timeout: 120000});

await page.goto(config.address);
await status("ready|error");
const found = {isolated: await page.evaluate(() => crossOriginIsolated), photos: {}};
await page.setInputFiles("#photo", config.photo);
await status("^\\d+ face|error");
for (const model of config.models) {
  await page.selectOption("#model", model);
  await status("^\\d+ face|error");
  found.photos[model] = await page.evaluate(() => window.edgeface);
  await page.screenshot({path: `${config.shots}/${model}.png`});
}
await page.click("#camera");
await status("FPS|error");
found.camera = await page.evaluate(() => window.edgeface);
found.status = await page.textContent("#status");
await page.screenshot({path: `${config.shots}/camera.png`});
await page.click("#camera");
await browser.close();
console.log(JSON.stringify({...found, requests, errors}));
