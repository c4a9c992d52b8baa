// node mediapipe.mjs CONFIG: what MediaPipe's ObjectDetector for the web finds in a photo, as JSON.
// CONFIG: {playwright, chromium, address, models, photo}.
import {createRequire} from "node:module";

const config = JSON.parse(process.argv[2]);
const {chromium} = createRequire(import.meta.url)(config.playwright);
const browser = await chromium.launch(
  {executablePath: config.chromium, args: ["--no-sandbox", "--disable-gpu"]});
const page = await browser.newPage();
await page.goto(config.address);
const found = await page.evaluate(async ({models, photo}) => {
  const folder = "/node_modules/@mediapipe/tasks-vision";
  const {FilesetResolver, ObjectDetector} = await import(`${folder}/vision_bundle.mjs`);
  const files = await FilesetResolver.forVisionTasks(`${folder}/wasm`);
  const image = Object.assign(new Image(), {src: photo});
  await image.decode();
  const found = [];
  for (const modelAssetPath of models) {
    const baseOptions = {modelAssetPath, delegate: "CPU"};
    const detector = await ObjectDetector.createFromOptions(
      files, {baseOptions, scoreThreshold: 0.5});
    found.push(detector.detect(image).detections);
    detector.close();
  }
  return found;
}, config);
await browser.close();
console.log(JSON.stringify(found));
