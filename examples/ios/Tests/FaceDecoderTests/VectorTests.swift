import Foundation
import XCTest

@testable import FaceDecoder

/// The decoder gives what the golden vectors say. `swift test`; they lie in ../vectors, or where
/// VECTORS says.
final class VectorTests: XCTestCase {
    private struct ExpectedFace: Decodable {
        let score: Double
        let box: [Double]
        let landmarks: [[Double]]?
    }

    private struct Case: Decodable {
        let name: String
        let contract: Contract
        let photo, fitted, canvas: [Int]
        let rgb, pixels: Data?
        let outputs: [Data]?
        let faces: [ExpectedFace]?
    }

    func testVectors() throws {
        let folder = ProcessInfo.processInfo.environment["VECTORS"] ?? "../vectors"
        let files = try FileManager.default.contentsOfDirectory(atPath: folder)
            .filter { $0.hasSuffix(".json") }
        XCTAssertFalse(files.isEmpty, "no vectors in \(folder)")
        for file in files.sorted() {
            let data = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(file)"))
            for vector in try JSONDecoder().decode([Case].self, from: data) { check(vector) }
        }
    }

    private func check(_ vector: Case) {
        let decoder = Decoder(vector.contract)
        let (width, height) = (vector.photo[0], vector.photo[1])
        let fit = decoder.fit(photoWidth: width, photoHeight: height)
        XCTAssertEqual([fit.width, fit.height], vector.fitted, vector.name)
        XCTAssertEqual([fit.canvasWidth, fit.canvasHeight], vector.canvas, vector.name)
        if let rgb = vector.rgb, let pixels = vector.pixels {
            let canvas = [UInt8](rgb).withUnsafeBufferPointer {
                decoder.letterbox(
                    $0, photoWidth: width, photoHeight: height, bytesPerRow: 3 * width, step: 3)
            }
            assertNear(canvas.map(Double.init), pixels.map(Double.init), 0, vector.name)
        }
        guard let outputs = vector.outputs, let wanted = vector.faces else { return }
        let faces = decoder.decode(outputs, photoWidth: width, photoHeight: height)
        assertNear(faces.map(\.score), wanted.map(\.score), 1e-4, vector.name)
        let boxes = faces.flatMap { [$0.x1, $0.y1, $0.x2, $0.y2] }
        assertNear(boxes, wanted.flatMap(\.box), 0.05, vector.name)
        let points = faces.flatMap { $0.landmarks.flatMap { [$0.x, $0.y] } }
        assertNear(points, wanted.flatMap { ($0.landmarks ?? []).flatMap { $0 } }, 0.05, vector.name)
    }

    private func assertNear(_ a: [Double], _ b: [Double], _ most: Double, _ name: String) {
        XCTAssertEqual(a.count, b.count, name)
        XCTAssertLessThanOrEqual(zip(a, b).map { abs($0 - $1) }.max() ?? 0, most, name)
    }
}
