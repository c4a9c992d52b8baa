import Foundation

/// Sides in px of a photo on the canvas, and of the canvas.
public struct Fit: Equatable {
    public let width, height, canvasWidth, canvasHeight: Int
}

/// In px of the photo.
public struct Point {
    public let x, y: Double
}

/// A face in px of the photo. `landmarks`: eyes, nose, corners of the mouth, left in the photo
/// first; empty if the model finds none.
public struct Face {
    public let score, x1, y1, x2, y2: Double
    public let landmarks: [Point]

    fileprivate func iou(_ other: Face) -> Double {
        let shared = max(min(x2, other.x2) - max(x1, other.x1), 0)
            * max(min(y2, other.y2) - max(y1, other.y1), 0)
        return shared > 0 ? shared / (area + other.area - shared) : 0
    }

    /// Of all that overlap this by more than `most`, itself among them, as the contract weighs them.
    fileprivate func meanLandmarks(_ candidates: [Face], _ most: Double) -> [Point] {
        let weights = candidates.map { max(iou($0) - most, 0) * $0.score }
        let total = weights.reduce(0, +)
        guard total > 0 else { return landmarks }
        let voters = zip(candidates, weights).filter { $0.1 > 0 }
        return landmarks.indices.map { i in
            Point(
                x: voters.reduce(0) { $0 + $1.1 * $1.0.landmarks[i].x } / total,
                y: voters.reduce(0) { $0 + $1.1 * $1.0.landmarks[i].y } / total)
        }
    }

    fileprivate func with(_ points: [Point]) -> Face {
        Face(score: score, x1: x1, y1: y1, x2: x2, y2: y2, landmarks: points)
    }

    private var area: Double { max(x2 - x1, 0) * max(y2 - y1, 0) }
}

/// photo --letterbox--> canvas --tensor--> your runtime --outputs--> decode --> faces, as a contract
/// says. Foundation alone.
public struct Decoder {
    public let contract: Contract
    /// Lowest that is reported, 0 to 1.
    public var score: Double

    public init(_ contract: Contract) {
        self.contract = contract
        score = contract.results.score
    }

    public func fit(photoWidth: Int, photoHeight: Int) -> Fit {
        let rule = contract.fit
        let across = rule.longSidePx ?? contract.input.width ?? 0
        let down = rule.longSidePx ?? contract.input.height ?? 0
        let s = min(Double(across) / Double(photoWidth), Double(down) / Double(photoHeight))
        func scaled(_ side: Int) -> Int { Int((Double(side) * s).rounded(.toNearestOrEven)) }
        let width = min(across, max(1, scaled(photoWidth)))
        let height = min(down, max(1, scaled(photoHeight)))
        guard rule.longSidePx != nil else {
            return Fit(width: width, height: height, canvasWidth: across, canvasHeight: down)
        }
        let multiple = rule.multiplePx
        func whole(_ side: Int) -> Int { (side + multiple - 1) / multiple * multiple }
        return Fit(
            width: width, height: height, canvasWidth: whole(width), canvasHeight: whole(height))
    }

    /// RGB of the canvas, row by row. `pixels`: bytes of the photo, `step` a pixel, in the order
    /// `red`, `green`, `blue`: 2, 1, 0 with step 4 for a camera's BGRA. Every level is that of
    /// OpenCV, which models are checked with: the same sums in the same order, in integers where it
    /// has them.
    public func letterbox(
        _ pixels: UnsafeBufferPointer<UInt8>, photoWidth: Int, photoHeight: Int, bytesPerRow: Int,
        step: Int = 4, red: Int = 0, green: Int = 1, blue: Int = 2
    ) -> [UInt8] {
        let rule = contract.fit
        let to = fit(photoWidth: photoWidth, photoHeight: photoHeight)
        let shrinks = max(to.width, to.height) < max(photoWidth, photoHeight)
        let byArea = (shrinks ? rule.shrink : rule.enlarge) == "area"
        let whole = byArea && photoWidth % to.width == 0 && photoHeight % to.height == 0
        let covered = whole ? photoWidth / to.width * (photoHeight / to.height) : 1
        let scale: Float = byArea ? 1 / Float(covered) : 0.25
        let even = byArea && (photoWidth != 2 * to.width || photoHeight != 2 * to.height)
        let columns = taps(photoWidth, to.width, byArea, whole)
        let channels = [red, green, blue]
        var canvas = [UInt8](repeating: rule.value, count: to.canvasWidth * to.canvasHeight * 3)
        for (y, rows) in taps(photoHeight, to.height, byArea, whole).enumerated() {
            var line = [Float](repeating: 0, count: to.width * 3)
            for down in rows {
                for i in line.indices {
                    let from = down.at * bytesPerRow + channels[i % 3]
                    var sum: Float = 0
                    for tap in columns[i / 3] { sum += tap.share * Float(pixels[from + tap.at * step]) }
                    // In Swift a shift comes before a product.
                    line[i] += byArea
                        ? down.share * sum : Float(((Int(sum) >> 4) * Int(down.share)) >> 16)
                }
            }
            for i in line.indices {
                let level = line[i] * scale
                canvas[y * to.canvasWidth * 3 + i] =
                    UInt8(even ? level.rounded(.toNearestOrEven) : level + 0.5)
            }
        }
        return canvas
    }

    /// What the file takes, of a canvas: float32 or int8 in the layout of the contract.
    public func tensor(_ canvas: [UInt8]) -> Data {
        let input = contract.input
        let cells = canvas.count / 3
        var values = [Float](repeating: 0, count: canvas.count)
        for (i, byte) in canvas.enumerated() {
            let at = input.layout == .nchw ? i % 3 * cells + i / 3 : i
            values[at] = Float(Double(byte) / input.scale + input.zeroPoint)
        }
        switch input.dtype {
        case .float32: return values.withUnsafeBytes { Data($0) }
        case .int8: return values.map { Int8($0) }.withUnsafeBytes { Data($0) }
        }
    }

    /// Faces, best first. `outputs`: bytes in the order of contract.outputs.
    public func decode(_ outputs: [Data], photoWidth: Int, photoHeight: Int) -> [Face] {
        let fit = fit(photoWidth: photoWidth, photoHeight: photoHeight)
        var found: [Face] = []
        var strides: [Int] = []
        var levels: [Int: [Tensor.Kind: OutputMap]] = [:]
        for (spec, data) in zip(contract.outputs, outputs) {
            guard let kind = spec.kind, let stride = spec.stride else { continue }
            if levels[stride] == nil { strides.append(stride) }
            levels[stride, default: [:]][kind] = OutputMap(spec, data, stride, fit)
        }
        for stride in strides { addCandidates(stride, levels[stride] ?? [:], to: &found) }
        // Swift does not promise that sort is stable
        let order = found.indices.sorted {
            found[$0].score != found[$1].score ? found[$0].score > found[$1].score : $0 < $1
        }
        var kept: [Face] = []
        let candidates = order.prefix(contract.results.candidates).map { found[$0] }
        let most = contract.results.nmsIou
        for face in candidates where !kept.contains(where: { $0.iou(face) > most }) {
            kept.append(face)
        }
        let fx = Double(fit.width) / Double(photoWidth)
        let fy = Double(fit.height) / Double(photoHeight)
        return kept.map { $0.with($0.meanLandmarks(candidates, most)) }
            .map { inPhoto($0, fx, fy, Double(photoWidth), Double(photoHeight)) }
            .filter { $0.x2 > $0.x1 && $0.y2 > $0.y1 }
    }

    private func addCandidates(
        _ stride: Int, _ level: [Tensor.Kind: OutputMap], to found: inout [Face]
    ) {
        guard let cls = level[.cls], let box = level[.box] else { return }
        let rule = contract.boxes
        for row in 0..<cls.rows {
            for column in 0..<cls.columns {
                for anchor in 0..<rule.anchors {
                    let s = 1 / (1 + exp(-cls.at(row, column, anchor)))
                    guard s >= score else { continue }
                    let x = Double(column) + rule.offset
                    let y = Double(row) + rule.offset
                    let sides = corners(x, y, (0..<4).map { box.at(row, column, 4 * anchor + $0) })
                        .map { $0 * Double(stride) }
                    let points = level[.kps].map { kps in
                        (0..<5).map { i in
                            let at = 10 * anchor + 2 * i
                            return Point(
                                x: (x + kps.at(row, column, at)) * Double(stride),
                                y: (y + kps.at(row, column, at + 1)) * Double(stride))
                        }
                    }
                    found.append(Face(
                        score: s, x1: sides[0], y1: sides[1], x2: sides[2], y2: sides[3],
                        landmarks: points ?? []))
                }
            }
        }
    }

    /// x1, y1, x2, y2 in strides.
    private func corners(_ x: Double, _ y: Double, _ v: [Double]) -> [Double] {
        switch contract.boxes.coding {
        case .distance:
            return [x - v[0], y - v[1], x + v[2], y + v[3]]
        case .ssd:
            let p = contract.boxes.prior[0]
            let q = contract.boxes.prior[1]
            let (cx, cy) = (x + v[0] * p, y + v[1] * q)
            let (w, h) = (exp(v[2]) * p / 2, exp(v[3]) * q / 2)
            return [cx - w, cy - h, cx + w, cy + h]
        }
    }

    private func inPhoto(
        _ face: Face, _ fx: Double, _ fy: Double, _ width: Double, _ height: Double
    ) -> Face {
        Face(
            score: face.score,
            x1: min(max(face.x1 / fx, 0), width), y1: min(max(face.y1 / fy, 0), height),
            x2: min(max(face.x2 / fx, 0), width), y2: min(max(face.y2 / fy, 0), height),
            landmarks: face.landmarks.map { Point(x: $0.x / fx, y: $0.y / fy) })
    }
}

/// One output of a file, of cells of the canvas.
private struct OutputMap {
    let rows, columns: Int
    private let spec: Tensor
    private let values: [Double]

    init(_ spec: Tensor, _ data: Data, _ stride: Int, _ fit: Fit) {
        self.spec = spec
        rows = (fit.canvasHeight + stride - 1) / stride
        columns = (fit.canvasWidth + stride - 1) / stride
        values = data.withUnsafeBytes { bytes in
            switch spec.dtype {
            case .int8: return bytes.map { Double(Int8(bitPattern: $0)) }
            case .float32:
                return (0..<bytes.count / 4).map {
                    Double(bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self))
                }
            }
        }
    }

    func at(_ row: Int, _ column: Int, _ channel: Int) -> Double {
        let cell = row * columns + column
        let i = spec.layout == .nchw
            ? channel * rows * columns + cell : cell * spec.channels + channel
        return (values[i] - spec.zeroPoint) * spec.scale
    }
}

/// Old pixels in each new one, and their shares. By area: how much is in it, in px where whole ones
/// are, else of 1. Bilinear: of the two around the centre, of 2048.
private func taps(
    _ old: Int, _ fresh: Int, _ byArea: Bool, _ whole: Bool
) -> [[(at: Int, share: Float)]] {
    let step = Double(old) / Double(fresh)
    return (0..<fresh).map { i in
        if byArea {
            let low = Double(i) * step
            let high = min(Double(i + 1) * step, Double(old))
            return (Int(low)..<Int(high.rounded(.up))).compactMap { at in
                let part = min(Double(at + 1), high) - max(Double(at), low)
                return part > 1e-3 ? (at, Float(whole ? part : part / (high - low))) : nil
            }
        }
        let centre = Float((Double(i) + 0.5) * step - 0.5)
        let first = centre.rounded(.down)
        let right = (2048 * (centre - first)).rounded(.toNearestOrEven)
        return [(max(Int(first), 0), 2048 - right), (min(Int(first) + 1, old - 1), right)]
    }
}
