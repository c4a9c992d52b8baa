package edgeface.app

import android.Manifest
import android.content.Context
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Matrix
import android.graphics.Paint
import android.os.Bundle
import android.os.SystemClock
import android.view.View
import android.widget.FrameLayout
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.lifecycle.ProcessCameraProvider
import edgeface.Face
import java.util.concurrent.Executors

/** The camera's frames with boxes and landmarks; nothing leaves the phone. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor()
    private lateinit var detector: FaceDetector
    private lateinit var view: FaceView
    private val permission =
        registerForActivityResult(ActivityResultContracts.RequestPermission()) { if (it) start() }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        view = FaceView(this)
        setContentView(FrameLayout(this).apply { addView(view) })
        detector = FaceDetector(this)
        worker.execute { detector.setup() }
        val granted = checkSelfPermission(Manifest.permission.CAMERA)
        if (granted == PackageManager.PERMISSION_GRANTED) start()
        else permission.launch(Manifest.permission.CAMERA)
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.execute { detector.close() }
        worker.shutdown()
    }

    private fun start() {
        val future = ProcessCameraProvider.getInstance(this)
        future.addListener({
            val analysis = ImageAnalysis.Builder()
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .build()
            analysis.setAnalyzer(worker, ::analyse)
            val cameras = future.get()
            cameras.unbindAll()
            cameras.bindToLifecycle(this, CameraSelector.DEFAULT_FRONT_CAMERA, analysis)
        }, mainExecutor())
    }

    private fun mainExecutor() = java.util.concurrent.Executor { runOnUiThread(it) }

    private fun analyse(image: ImageProxy) = image.use {
        val frame = upright(it.toBitmap(), it.imageInfo.rotationDegrees)
        val start = SystemClock.elapsedRealtimeNanos()
        val faces = detector.detect(frame)
        val ms = (SystemClock.elapsedRealtimeNanos() - start) / 1e6
        runOnUiThread { view.show(frame, faces, ms) }
    }

    private fun upright(frame: Bitmap, degrees: Int): Bitmap {
        if (degrees == 0) return frame
        val turn = Matrix().apply { postRotate(degrees.toFloat()) }
        return Bitmap.createBitmap(frame, 0, 0, frame.width, frame.height, turn, true)
    }
}

/** A frame as large as fits, and what was found in it. */
class FaceView(context: Context) : View(context) {
    private var frame: Bitmap? = null
    private var faces: List<Face> = emptyList()
    private var ms = 0.0
    private val line = Paint().apply {
        color = Color.GREEN
        style = Paint.Style.STROKE
        strokeWidth = 3f
    }
    private val text = Paint().apply {
        color = Color.GREEN
        textSize = 40f
    }

    fun show(frame: Bitmap, faces: List<Face>, ms: Double) {
        this.frame = frame
        this.faces = faces
        this.ms = ms
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val shown = frame ?: return
        val scale = minOf(width.toFloat() / shown.width, height.toFloat() / shown.height)
        canvas.save()
        canvas.scale(scale, scale)
        canvas.drawBitmap(shown, 0f, 0f, null)
        for (face in faces) {
            canvas.drawRect(
                face.x1.toFloat(), face.y1.toFloat(), face.x2.toFloat(), face.y2.toFloat(), line,
            )
            for (point in face.landmarks) canvas.drawCircle(point.x.toFloat(), point.y.toFloat(), 3f, line)
        }
        canvas.restore()
        val count = if (faces.size == 1) "1 face" else "${faces.size} faces"
        canvas.drawText("%s, %.1f ms".format(count, ms), 20f, height - 20f, text)
    }
}
