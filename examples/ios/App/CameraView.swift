import AVFoundation
import FaceDecoder
import UIKit

/// The front camera with boxes and landmarks over it; nothing leaves the phone.
final class CameraViewController: UIViewController, AVCaptureVideoDataOutputSampleBufferDelegate {
    private let session = AVCaptureSession()
    private let queue = DispatchQueue(label: "frames")
    private let marks = CAShapeLayer()
    private lazy var preview = AVCaptureVideoPreviewLayer(session: session)
    private var detector: FaceDetector?

    override func viewDidLoad() {
        super.viewDidLoad()
        preview.videoGravity = .resizeAspect
        marks.strokeColor = UIColor.green.cgColor
        marks.fillColor = nil
        view.layer.addSublayer(preview)
        view.layer.addSublayer(marks)
        AVCaptureDevice.requestAccess(for: .video) { granted in
            if granted { self.queue.async { self.start() } }
        }
    }

    /// Frames are turned for a phone that is held upright.
    override var supportedInterfaceOrientations: UIInterfaceOrientationMask { .portrait }

    override func viewDidLayoutSubviews() {
        super.viewDidLayoutSubviews()
        preview.frame = view.bounds
    }

    private func start() {
        guard
            let manifest = Bundle.main.url(forResource: "manifest", withExtension: "json"),
            let model = Bundle.main.urls(
                forResourcesWithExtension: "tflite", subdirectory: nil)?.first,
            let camera = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .front),
            let input = try? AVCaptureDeviceInput(device: camera)
        else { return NSLog("manifest.json, its .tflite file or a front camera is missing") }
        do {
            detector = try FaceDetector(manifest: manifest, model: model)
        } catch {
            return NSLog("the model cannot be opened: \(error)")
        }
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA
        ]
        output.setSampleBufferDelegate(self, queue: queue)
        session.sessionPreset = .vga640x480
        session.addInput(input)
        session.addOutput(output)
        if let connection = output.connection(with: .video) {
            connection.videoOrientation = .portrait
            connection.automaticallyAdjustsVideoMirroring = false  // else the next line raises
            connection.isVideoMirrored = true
        }
        session.startRunning()
    }

    func captureOutput(
        _ output: AVCaptureOutput, didOutput sample: CMSampleBuffer, from connection: AVCaptureConnection
    ) {
        guard let frame = CMSampleBufferGetImageBuffer(sample),
            let faces = try? detector?.detect(frame)
        else { return }
        let size = CGSize(width: CVPixelBufferGetWidth(frame), height: CVPixelBufferGetHeight(frame))
        DispatchQueue.main.async { self.draw(faces, in: size) }
    }

    private func draw(_ faces: [Face], in size: CGSize) {
        let area = AVMakeRect(aspectRatio: size, insideRect: view.bounds)
        let scale = area.width / size.width
        let path = CGMutablePath()
        for face in faces {
            path.addRect(CGRect(
                x: area.minX + face.x1 * scale, y: area.minY + face.y1 * scale,
                width: (face.x2 - face.x1) * scale, height: (face.y2 - face.y1) * scale))
            for point in face.landmarks {
                let centre = CGPoint(x: area.minX + point.x * scale, y: area.minY + point.y * scale)
                path.addEllipse(in: CGRect(x: centre.x - 2, y: centre.y - 2, width: 4, height: 4))
            }
        }
        marks.path = path
    }
}
