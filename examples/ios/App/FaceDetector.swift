import CoreVideo
import FaceDecoder
import Foundation
import TensorFlowLite

/// Faces in camera frames (32BGRA), with a TFLite Bundle whose manifest.json and model file are
/// resources of the app. One thread at a time.
final class FaceDetector {
    private let decoder: Decoder
    private let interpreter: Interpreter

    init(manifest: URL, model: URL, threads: Int = 2) throws {
        decoder = Decoder(try Contract(manifest: Data(contentsOf: manifest)))
        var options = Interpreter.Options()
        options.threadCount = threads
        interpreter = try Interpreter(modelPath: model.path, options: options)
        try interpreter.allocateTensors()
    }

    /// Best first, in px of `frame`.
    func detect(_ frame: CVPixelBuffer) throws -> [Face] {
        CVPixelBufferLockBaseAddress(frame, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
        guard let base = CVPixelBufferGetBaseAddress(frame) else { return [] }
        let (width, height) = (CVPixelBufferGetWidth(frame), CVPixelBufferGetHeight(frame))
        let stride = CVPixelBufferGetBytesPerRow(frame)
        let bytes = UnsafeBufferPointer(
            start: base.assumingMemoryBound(to: UInt8.self), count: stride * height)
        let canvas = decoder.letterbox(
            bytes, photoWidth: width, photoHeight: height, bytesPerRow: stride,
            red: 2, green: 1, blue: 0)
        try interpreter.copy(decoder.tensor(canvas), toInputAt: decoder.contract.input.index)
        try interpreter.invoke()
        let outputs = try decoder.contract.outputs.map { try interpreter.output(at: $0.index).data }
        return decoder.decode(outputs, photoWidth: width, photoHeight: height)
    }
}
