// The page: a photo or the camera in, boxes and landmarks drawn over it.
import {Decoder} from "./decoder.js";
import {open} from "./runtimes.js";

const element = (id) => document.getElementById(id);
const picture = element("picture"), context = picture.getContext("2d", {willReadFrequently: true});
let decoder, runtime, loaded, camera = null, shown = null, chosen = 0, dropped = 0;
let working = Promise.resolve();

const say = (text) => { element("status").textContent = text; };
const fail = (error) => { console.error(error); say(`error: ${error.message ?? error}`); };

/** One job at a time: what is drawn, what computes and what is found belong together. */
function inTurn(job) {
  const done = working.then(job);
  working = done.catch(() => {});
  return done;
}

async function json(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} is not on the server (${answer.status})`);
  return answer.json();
}

async function choose(folder) {
  stop();
  const turn = ++chosen;
  say(`Loading ${folder}…`);
  const place = `models/${encodeURIComponent(folder)}`;
  let manifest, opened;
  try {
    manifest = await json(`${place}/manifest.json`);
    opened = await open(manifest, `${place}/${manifest.primary}`);
  } catch (error) {
    if (turn !== chosen) return; // nobody waits for it
    if (loaded) element("model").value = loaded; // which still runs
    throw error;
  }
  if (turn !== chosen) return opened.close(); // another model was chosen meanwhile
  await inTurn(() => {
    runtime?.close();
    runtime = opened;
    loaded = folder;
    decoder = new Decoder(manifest);
    decoder.score = Number(element("score").value);
  });
  say(`${manifest.model}, ${runtime.name}: ready`);
  if (shown) told(await detect(shown));
}

/** Faces of what can be drawn: an ImageBitmap or a video. */
const detect = (source) => inTurn(() => detectAlone(source));

async function detectAlone(source) {
  const width = source.videoWidth ?? source.width, height = source.videoHeight ?? source.height;
  if (picture.width !== width || picture.height !== height) {
    Object.assign(picture, {width, height, hidden: false});
    picture.previousElementSibling.hidden = true;
  }
  context.fillStyle = "#fff"; // behind what is transparent, and over the photo before
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  const start = performance.now();
  const {data} = context.getImageData(0, 0, width, height);
  const tensor = decoder.tensor(decoder.letterbox(data, width, height));
  const ready = performance.now();
  const outputs = await runtime.run(tensor, decoder.fit(width, height));
  const ran = performance.now();
  const faces = decoder.decode(outputs, width, height);
  draw(faces, Math.max(2, Math.max(width, height) / 300));
  const times = {network: ran - ready, all: performance.now() - start};
  window.edgeface = {faces, times, runtime: runtime.name};
  return {faces, times};
}

function draw(faces, line) {
  context.lineWidth = line;
  context.strokeStyle = context.fillStyle = "#0f6";
  for (const {box: [x1, y1, x2, y2], landmarks} of faces) {
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    for (const [x, y] of landmarks ?? []) {
      context.beginPath();
      context.arc(x, y, line * 1.2, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

function told({faces, times}, fps) {
  const rate = fps ? `, ${fps.toFixed(1)} FPS` : "";
  const count = `${faces.length} face${faces.length === 1 ? "" : "s"}`;
  say(`${count}, network ${times.network.toFixed(1)} ms, with all ${times.all.toFixed(1)} ms${rate}`
      + ` (${runtime.name})`);
}

async function showPhoto(file) {
  stop();
  const turn = ++dropped;
  const photo = await createImageBitmap(file); // upright, as its EXIF says
  if (turn !== dropped) return; // another photo was dropped meanwhile
  shown = photo;
  if (runtime) told(await detect(shown)); // else once it is there
}

async function start() {
  const media = {video: {width: 640, height: 480, facingMode: "user"}};
  const mine = camera = {};
  element("camera").textContent = "Stop";
  const stream = mine.stream = await navigator.mediaDevices.getUserMedia(media);
  if (camera !== mine) return release(mine); // stopped before it began
  const video = Object.assign(document.createElement("video"), {srcObject: stream, muted: true});
  stream.getVideoTracks()[0].onended = () => { stop(); say("error: the camera is gone"); };
  await video.play();
  const frames = [];
  while (camera === mine) {
    const found = await detect(video);
    if (camera !== mine) return; // what is shown now is another thing
    frames.push(performance.now());
    if (frames.length > 30) frames.shift();
    const fps = (frames.length - 1) * 1000 / (frames.at(-1) - frames[0]);
    told(found, frames.length > 1 && fps);
    await new Promise(requestAnimationFrame);
  }
}

const release = ({stream}) => stream?.getTracks().forEach((track) => track.stop());

function stop() {
  if (camera) release(camera);
  camera = null;
  element("camera").textContent = "Camera";
}

function listen() {
  const stage = element("stage");
  element("camera").onclick = () => camera ? stop() : start().catch((e) => { stop(); fail(e); });
  element("photo").onchange = ({target}) => target.files[0] && showPhoto(target.files[0]).catch(fail);
  element("model").onchange = ({target}) => choose(target.value).catch(fail);
  element("score").oninput = ({target}) => {
    if (!decoder) return; // it takes the score once it is there
    decoder.score = Number(target.value);
    if (shown && !camera) detect(shown).then(told).catch(fail);
  };
  for (const kind of ["dragover", "dragleave", "drop"]) {
    stage.addEventListener(kind, (event) => {
      event.preventDefault();
      stage.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) {
        showPhoto(event.dataTransfer.files[0]).catch(fail);
      }
    });
  }
}

async function main() {
  const models = await json("models.json");
  if (!models.length) throw new Error("models.json names no folder of a model");
  for (const name of models) element("model").add(new Option(name, name));
  listen();
  await choose(models[0]);
}

main().catch(fail);
