import Foundation

/// What manifest.json says under `contract`.
public struct Contract: Decodable {
    public let signature: String?
    public let fit: FitRule
    public let input: Tensor
    public let outputs: [Tensor]
    public let boxes: BoxRule
    public let results: ResultRule

    private struct Manifest: Decodable {
        let contract: Contract
    }

    /// Of the content of manifest.json.
    public init(manifest: Data) throws {
        self = try JSONDecoder().decode(Manifest.self, from: manifest).contract
    }
}

/// How a photo is laid on the canvas.
public struct FitRule: Decodable {
    public let value: UInt8
    public let shrink: String
    public let enlarge: String
    /// nil: the input has one size
    public let longSidePx: Int?
    public let multiplePx: Int

    enum CodingKeys: String, CodingKey {
        case value, shrink, enlarge
        case longSidePx = "long_side_px"
        case multiplePx = "multiple_px"
    }
}

/// The input, or one output.
public struct Tensor: Decodable {
    public enum Kind: String, Decodable { case cls, box, kps }
    public enum Layout: String, Decodable { case nchw = "NCHW", nhwc = "NHWC" }
    public enum Element: String, Decodable { case float32, int8 }

    /// nil: the input
    public let kind: Kind?
    public let stride: Int?
    public let name: String
    public let index: Int
    public let dtype: Element
    public let layout: Layout
    public let scale: Double
    public let zeroPoint: Double
    /// nil: any
    public let shape: [Int?]

    public var channels: Int { (layout == .nchw ? shape[1] : shape[3]) ?? 0 }
    public var height: Int? { layout == .nchw ? shape[2] : shape[1] }
    public var width: Int? { layout == .nchw ? shape[3] : shape[2] }

    enum CodingKeys: String, CodingKey {
        case kind, stride, name, index, dtype, layout, scale, shape
        case zeroPoint = "zero_point"
    }
}

/// From box values to a box.
public struct BoxRule: Decodable {
    public enum Coding: String, Decodable { case distance, ssd }

    public let coding: Coding
    public let anchors: Int
    public let offset: Double
    public let prior: [Double]
}

/// From candidates to faces.
public struct ResultRule: Decodable {
    public let score: Double
    public let nmsIou: Double
    public let candidates: Int

    enum CodingKeys: String, CodingKey {
        case score, candidates
        case nmsIou = "nms_iou"
    }
}
