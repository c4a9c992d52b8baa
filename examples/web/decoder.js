// Faces from a model file of edgeface, by the contract in its manifest.json. No dependencies; to
// copy into an app.
//
//   photo --letterbox--> canvas --tensor--> your runtime --outputs--> decode --> faces

export class Decoder {
  /** @param manifest the parsed manifest.json */
  constructor(manifest) {
    if (!manifest.contract) throw new Error("manifest.json has no contract: export the model again");
    this.contract = manifest.contract;
    /** lowest score that is reported, 0 to 1 */
    this.score = this.contract.results.score;
  }

  /** Sides of a photo in px -> {width, height} on the canvas, {canvasWidth, canvasHeight}. */
  fit(photoWidth, photoHeight) {
    const {fit, input} = this.contract;
    const [high, wide] = input.layout === "NCHW" ? input.shape.slice(2) : input.shape.slice(1, 3);
    const across = fit.long_side_px ?? wide, down = fit.long_side_px ?? high;
    const s = Math.min(across / photoWidth, down / photoHeight);
    const width = Math.min(across, Math.max(1, halfToEven(photoWidth * s)));
    const height = Math.min(down, Math.max(1, halfToEven(photoHeight * s)));
    const whole = (v) => Math.ceil(v / fit.multiple_px) * fit.multiple_px;
    return fit.long_side_px === null
      ? {width, height, canvasWidth: wide, canvasHeight: high}
      : {width, height, canvasWidth: whole(width), canvasHeight: whole(height)};
  }

  /**
   * RGB of the canvas, bytes row by row. Every level is that of OpenCV, which models are checked
   * with: the same sums in the same order, in integers where it has them.
   * @param pixels bytes of the photo, `step` a pixel: 4 as ImageData has them, or 3
   */
  letterbox(pixels, photoWidth, photoHeight, step = 4) {
    const {fit} = this.contract;
    const {width, height, canvasWidth, canvasHeight} = this.fit(photoWidth, photoHeight);
    const shrinks = Math.max(width, height) < Math.max(photoWidth, photoHeight);
    const area = (shrinks ? fit.shrink : fit.enlarge) === "area";
    const whole = area && photoWidth % width === 0 && photoHeight % height === 0;
    const covered = whole ? photoWidth / width * (photoHeight / height) : 1;
    const scale = Math.fround(area ? 1 / covered : 0.25);
    const even = area && (photoWidth !== 2 * width || photoHeight !== 2 * height);
    const columns = taps(photoWidth, width, area, whole);
    const canvas = new Uint8ClampedArray(canvasWidth * canvasHeight * 3).fill(fit.value);
    const line = new Float32Array(width * 3);
    taps(photoHeight, height, area, whole).forEach((row, y) => {
      line.fill(0);
      for (const down of row) {
        const from = down.at * photoWidth * step;
        for (let i = 0; i < line.length; i++) {
          const column = columns[Math.floor(i / 3)], channel = from + i % 3;
          let sum = 0;
          for (let k = 0; k < column.length; k++) {
            const {at, share} = column[k];
            sum = Math.fround(sum + Math.fround(share * pixels[channel + at * step]));
          }
          line[i] += area ? Math.fround(down.share * sum) : (sum >> 4) * down.share >> 16;
        }
      }
      const to = y * canvasWidth * 3;
      line.forEach((sum, i) => {
        const level = Math.fround(sum * scale);
        canvas[to + i] = even ? level : Math.floor(level + 0.5);
      });
    });
    return canvas;
  }

  /** What the file takes, of a canvas: Float32Array or Int8Array in the layout of the contract. */
  tensor(canvas) {
    const {input} = this.contract;
    const values = new {float32: Float32Array, int8: Int8Array}[input.dtype](canvas.length);
    const cells = canvas.length / 3;
    for (let i = 0; i < canvas.length; i++) {
      const to = input.layout === "NCHW" ? (i % 3) * cells + Math.floor(i / 3) : i;
      values[to] = canvas[i] / input.scale + input.zero_point;
    }
    return values;
  }

  /**
   * Faces, best first: {score, box: [x1, y1, x2, y2], landmarks: [[x, y], ...] or null}, in px of
   * the photo.
   * @param outputs typed arrays in the order of contract.outputs
   */
  decode(outputs, photoWidth, photoHeight) {
    const {results} = this.contract;
    const {width, height, canvasWidth, canvasHeight} = this.fit(photoWidth, photoHeight);
    const levels = new Map();
    this.contract.outputs.forEach((spec, i) => {
      const columns = Math.ceil(canvasWidth / spec.stride);
      const rows = Math.ceil(canvasHeight / spec.stride);
      const level = levels.get(spec.stride) ?? {columns, rows};
      levels.set(spec.stride, {...level, [spec.kind]: reader(spec, outputs[i], rows, columns)});
    });
    const found = [];
    for (const [stride, level] of levels) this.#candidates(stride, level, found);
    found.sort((a, b) => b.score - a.score); // stable
    const candidates = found.slice(0, results.candidates);
    const kept = suppress(candidates, results.nms_iou).map((face) => face.landmarks
      ? {...face, landmarks: meanLandmarks(face, candidates, results.nms_iou)} : face);
    const fx = width / photoWidth, fy = height / photoHeight;
    const within = (v, most) => Math.min(Math.max(v, 0), most);
    return kept.map(({score, box: [x1, y1, x2, y2], landmarks}) => ({
      score,
      box: [within(x1 / fx, photoWidth), within(y1 / fy, photoHeight),
            within(x2 / fx, photoWidth), within(y2 / fy, photoHeight)],
      landmarks: landmarks?.map(([x, y]) => [x / fx, y / fy]) ?? null,
    })).filter(({box}) => box[2] > box[0] && box[3] > box[1]);
  }

  #candidates(stride, {rows, columns, cls, box, kps}, found) {
    const {anchors, offset} = this.contract.boxes;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        for (let anchor = 0; anchor < anchors; anchor++) {
          const score = 1 / (1 + Math.exp(-cls(row, column, anchor)));
          if (!(score >= this.score)) continue;
          const x = column + offset, y = row + offset;
          const value = (i) => box(row, column, 4 * anchor + i);
          const point = (i) => [0, 1].map(
            (axis) => ([x, y][axis] + kps(row, column, 10 * anchor + 2 * i + axis)) * stride);
          found.push({
            score,
            box: this.#box(x, y, value).map((v) => v * stride),
            landmarks: kps ? [0, 1, 2, 3, 4].map(point) : null,
          });
        }
      }
    }
  }

  #box(x, y, value) {
    const {coding, prior: [p, q]} = this.contract.boxes;
    if (coding === "distance") return [x - value(0), y - value(1), x + value(2), y + value(3)];
    if (coding !== "ssd") throw new Error(`unknown box coding ${coding}`);
    const cx = x + value(0) * p, cy = y + value(1) * q;
    const w = Math.exp(value(2)) * p / 2, h = Math.exp(value(3)) * q / 2;
    return [cx - w, cy - h, cx + w, cy + h];
  }
}

/** (row, column, channel) -> real value. */
function reader(spec, data, rows, columns) {
  const nchw = spec.layout === "NCHW";
  const channels = nchw ? spec.shape[1] : spec.shape[3];
  return (row, column, channel) => {
    const cell = row * columns + column;
    const at = nchw ? channel * rows * columns + cell : cell * channels + channel;
    return (data[at] - spec.zero_point) * spec.scale;
  };
}

function suppress(faces, most) {
  const kept = [];
  for (const face of faces) {
    if (kept.every((better) => iou(face.box, better.box) <= most)) kept.push(face);
  }
  return kept;
}

/** Of all that overlap a face by more than `most`, itself among them, as the contract weighs them. */
function meanLandmarks(face, candidates, most) {
  const sums = face.landmarks.map(() => [0, 0]);
  let total = 0;
  for (const {score, box, landmarks} of candidates) {
    const weight = Math.max(iou(face.box, box) - most, 0) * score;
    if (weight === 0) continue;
    total += weight;
    landmarks.forEach((point, i) => point.forEach((v, axis) => { sums[i][axis] += weight * v; }));
  }
  return total > 0 ? sums.map((point) => point.map((v) => v / total)) : face.landmarks;
}

function iou(a, b) {
  const area = (x1, y1, x2, y2) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
  const shared = area(Math.max(a[0], b[0]), Math.max(a[1], b[1]),
                      Math.min(a[2], b[2]), Math.min(a[3], b[3]));
  return shared > 0 ? shared / (area(...a) + area(...b) - shared) : 0;
}

/**
 * Old pixels in each new one, and their shares. By area: how much is in it, in px where whole ones
 * are, else of 1. Bilinear: of the two around the centre, of 2048.
 */
function taps(old, fresh, area, whole) {
  const step = old / fresh;
  return Array.from({length: fresh}, (_, i) => {
    if (!area) {
      const centre = Math.fround((i + 0.5) * step - 0.5), first = Math.floor(centre);
      const right = halfToEven(2048 * (centre - first));
      return [{at: Math.max(first, 0), share: 2048 - right},
              {at: Math.min(first + 1, old - 1), share: right}];
    }
    const low = i * step, high = Math.min((i + 1) * step, old), found = [];
    for (let at = Math.floor(low); at < high; at++) {
      const part = Math.min(at + 1, high) - Math.max(at, low);
      if (part > 1e-3) found.push({at, share: Math.fround(whole ? part : part / (high - low))});
    }
    return found;
  });
}

function halfToEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
