// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "FaceDecoder",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "FaceDecoder", targets: ["FaceDecoder"])],
    targets: [
        .target(name: "FaceDecoder"),
        .testTarget(name: "FaceDecoderTests", dependencies: ["FaceDecoder"]),
    ]
)
