// A model file in its runtime: open(manifest, url) -> {name, run(tensor, fit)}, which gives the
// outputs in the order of the contract.

const shapeOf = ({layout}, {canvasWidth: w, canvasHeight: h}) =>
  layout === "NCHW" ? [1, 3, h, w] : [1, h, w, 3];

let liteRt; // is loaded once

async function openLiteRt({contract}, url) {
  if (contract.input.dtype !== "float32") throw new Error("LiteRT.js takes float32 files alone");
  const {loadLiteRt, loadAndCompile, Tensor} = await import("@litertjs/core");
  liteRt ??= loadLiteRt("node_modules/@litertjs/core/wasm/");
  await liteRt;
  const model = await loadAndCompile(url, {accelerator: "wasm"});
  return {
    name: "LiteRT.js",
    async run(tensor, fit) {
      const input = new Tensor(tensor, shapeOf(contract.input, fit));
      const found = await model.run({[contract.input.name]: input});
      const outputs = await Promise.all(contract.outputs.map(({name}) => found[name].data()));
      const copies = outputs.map((data) => data.slice());
      for (const tensor of [input, ...Object.values(found)]) tensor.delete();
      return copies;
    },
    close: () => model.delete?.(),
  };
}

async function openOnnx({contract}, url) {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", document.baseURI).href;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(url, {executionProviders: ["wasm"]});
  return {
    name: "ONNX Runtime Web",
    async run(tensor, fit) {
      const {name, dtype} = contract.input;
      const input = new ort.Tensor(dtype, tensor, shapeOf(contract.input, fit));
      const found = await session.run({[name]: input});
      return contract.outputs.map((output) => found[output.name].data);
    },
    close: () => session.release(),
  };
}

const RUNTIMES = {tflite: openLiteRt, onnx: openOnnx};

export function open(manifest, url) {
  const runtime = RUNTIMES[manifest.target];
  if (!runtime) throw new Error(`${manifest.target} files do not run in a browser: use tflite or onnx`);
  return runtime(manifest, url);
}
