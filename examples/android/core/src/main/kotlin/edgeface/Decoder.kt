package edgeface

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.ceil
import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** Sides in px of a photo on the canvas, and of the canvas. */
data class Fit(val width: Int, val height: Int, val canvasWidth: Int, val canvasHeight: Int)

/** In px of the photo. */
data class Point(val x: Double, val y: Double)

/**
 * A face in px of the photo. [landmarks]: eyes, nose, corners of the mouth, left in the photo first;
 * empty if the model finds none.
 */
data class Face(
    val score: Double,
    val x1: Double,
    val y1: Double,
    val x2: Double,
    val y2: Double,
    val landmarks: List<Point>,
) {
    internal fun iou(other: Face): Double {
        val shared = area(max(x1, other.x1), max(y1, other.y1), min(x2, other.x2), min(y2, other.y2))
        return if (shared > 0) shared / (area() + other.area() - shared) else 0.0
    }

    /** Of all that overlap this by more than [most], itself among them, as the contract weighs them. */
    internal fun meanLandmarks(candidates: List<Face>, most: Double): List<Point> {
        val weights = candidates.map { max(iou(it) - most, 0.0) * it.score }
        val total = weights.sum()
        if (total <= 0) return landmarks
        val voters = candidates.zip(weights).filter { (_, weight) -> weight > 0 }
        return landmarks.indices.map { i ->
            Point(
                voters.sumOf { (face, weight) -> weight * face.landmarks[i].x } / total,
                voters.sumOf { (face, weight) -> weight * face.landmarks[i].y } / total,
            )
        }
    }

    private fun area() = area(x1, y1, x2, y2)
    private fun area(l: Double, t: Double, r: Double, b: Double) = max(r - l, 0.0) * max(b - t, 0.0)
}

/**
 * photo --letterbox--> canvas --tensor--> your runtime --outputs--> decode --> faces, as a contract
 * says. Pure JVM. [score]: lowest that is reported, 0 to 1.
 */
class Decoder(val contract: Contract, var score: Double = contract.results.score) {
    fun fit(photoWidth: Int, photoHeight: Int): Fit {
        val rule = contract.fit
        val across = rule.longSidePx ?: requireNotNull(contract.input.width)
        val down = rule.longSidePx ?: requireNotNull(contract.input.height)
        val s = min(across.toDouble() / photoWidth, down.toDouble() / photoHeight)
        // round: half to even
        val width = min(across, max(1, round(photoWidth * s).toInt()))
        val height = min(down, max(1, round(photoHeight * s).toInt()))
        if (rule.longSidePx == null) return Fit(width, height, across, down)
        val multiple = rule.multiplePx
        fun whole(side: Int) = (side + multiple - 1) / multiple * multiple
        return Fit(width, height, whole(width), whole(height))
    }

    /**
     * RGB of the canvas, row by row. [photo]: pixels as Bitmap.getPixels has them, 0xAARRGGBB. Every
     * level is that of OpenCV, which models are checked with: the same sums in the same order, in
     * integers where it has them.
     */
    fun letterbox(photo: IntArray, photoWidth: Int, photoHeight: Int): ByteArray {
        val rule = contract.fit
        val to = fit(photoWidth, photoHeight)
        val shrinks = max(to.width, to.height) < max(photoWidth, photoHeight)
        val byArea = if (shrinks) rule.shrinkByArea else rule.enlargeByArea
        val whole = byArea && photoWidth % to.width == 0 && photoHeight % to.height == 0
        val covered = if (whole) photoWidth / to.width * (photoHeight / to.height) else 1
        val scale = if (byArea) 1f / covered else 0.25f
        val even = byArea && (photoWidth != 2 * to.width || photoHeight != 2 * to.height)
        val columns = taps(photoWidth, to.width, byArea, whole)
        val canvas = ByteArray(to.canvasWidth * to.canvasHeight * 3) { rule.value.toByte() }
        taps(photoHeight, to.height, byArea, whole).forEachIndexed { y, rows ->
            val line = FloatArray(to.width * 3)
            for (down in rows) {
                for (i in line.indices) {
                    val sum = across(photo, down.at * photoWidth, columns[i / 3], 16 - i % 3 * 8)
                    line[i] += if (byArea) down.share * sum
                    else ((sum.toInt() shr 4) * down.share.toInt() shr 16).toFloat()
                }
            }
            for (i in line.indices) {
                val level = line[i] * scale
                val rounded = (if (even) round(level) else level + 0.5f).toInt()
                canvas[y * to.canvasWidth * 3 + i] = rounded.toByte()
            }
        }
        return canvas
    }

    /** What the file takes, of a canvas: float32 or int8 in the layout of the contract. */
    fun tensor(canvas: ByteArray): ByteBuffer {
        val input = contract.input
        val size = if (input.isInt8) 1 else 4
        val tensor = ByteBuffer.allocateDirect(canvas.size * size).order(ByteOrder.nativeOrder())
        val cells = canvas.size / 3
        for (i in canvas.indices) {
            val at = if (input.nchw) i % 3 * cells + i / 3 else i
            val value = (canvas[i].toInt() and 255) / input.scale + input.zeroPoint
            if (input.isInt8) tensor.put(at, value.toInt().toByte())
            else tensor.putFloat(4 * at, value.toFloat())
        }
        return tensor
    }

    /** Faces, best first. [outputs]: in the order of contract.outputs, bytes in native order. */
    fun decode(outputs: List<ByteBuffer>, photoWidth: Int, photoHeight: Int): List<Face> {
        val fit = fit(photoWidth, photoHeight)
        val maps = contract.outputs.zip(outputs) { spec, data -> OutputMap(spec, data, fit) }
        val rule = contract.results
        val kept = ArrayList<Face>()
        val candidates = maps.groupBy { it.spec.stride }
            .flatMap { (stride, level) -> candidates(stride, level.associateBy { it.spec.kind }) }
            .sortedByDescending { it.score } // stable
            .take(rule.candidates)
        candidates.filterTo(kept) { face -> kept.none { it.iou(face) > rule.nmsIou } }
        val fx = fit.width.toDouble() / photoWidth
        val fy = fit.height.toDouble() / photoHeight
        return kept.map { it.copy(landmarks = it.meanLandmarks(candidates, rule.nmsIou)) }
            .map { it.inPhoto(fx, fy, photoWidth, photoHeight) }
            .filter { it.x2 > it.x1 && it.y2 > it.y1 }
    }

    private fun candidates(stride: Int, level: Map<String?, OutputMap>): List<Face> {
        val cls = level.getValue("cls")
        val found = ArrayList<Face>()
        for (row in 0 until cls.rows) {
            for (column in 0 until cls.columns) {
                for (anchor in 0 until contract.boxes.anchors) {
                    val s = 1 / (1 + exp(-cls.at(row, column, anchor)))
                    if (s >= score) found.add(face(stride, level, row, column, anchor, s))
                }
            }
        }
        return found
    }

    private fun face(
        stride: Int,
        level: Map<String?, OutputMap>,
        row: Int,
        column: Int,
        anchor: Int,
        s: Double,
    ): Face {
        val rule = contract.boxes
        val x = column + rule.offset
        val y = row + rule.offset
        val v = DoubleArray(4) { level.getValue("box").at(row, column, 4 * anchor + it) }
        val box = if (rule.ssd) {
            val (p, q) = rule.prior
            val w = exp(v[2]) * p / 2
            val h = exp(v[3]) * q / 2
            doubleArrayOf(x + v[0] * p - w, y + v[1] * q - h, x + v[0] * p + w, y + v[1] * q + h)
        } else {
            doubleArrayOf(x - v[0], y - v[1], x + v[2], y + v[3])
        }
        val points = level["kps"]?.let { kps ->
            List(5) {
                val at = 10 * anchor + 2 * it
                Point((x + kps.at(row, column, at)) * stride, (y + kps.at(row, column, at + 1)) * stride)
            }
        }
        val (x1, y1, x2, y2) = box.map { it * stride }
        return Face(s, x1, y1, x2, y2, points ?: emptyList())
    }

    private fun Face.inPhoto(fx: Double, fy: Double, width: Int, height: Int) = Face(
        score,
        (x1 / fx).coerceIn(0.0, width.toDouble()),
        (y1 / fy).coerceIn(0.0, height.toDouble()),
        (x2 / fx).coerceIn(0.0, width.toDouble()),
        (y2 / fy).coerceIn(0.0, height.toDouble()),
        landmarks.map { Point(it.x / fx, it.y / fy) },
    )
}

/** One output of a file, of cells of the canvas. */
private class OutputMap(val spec: Tensor, private val data: ByteBuffer, fit: Fit) {
    val rows = (fit.canvasHeight + spec.stride - 1) / spec.stride
    val columns = (fit.canvasWidth + spec.stride - 1) / spec.stride

    fun at(row: Int, column: Int, channel: Int): Double {
        val cell = row * columns + column
        val i = if (spec.nchw) channel * rows * columns + cell else cell * spec.channels + channel
        val value = if (spec.isInt8) data.get(i).toDouble() else data.getFloat(4 * i).toDouble()
        return (value - spec.zeroPoint) * spec.scale
    }
}

/** An old pixel, and the share of it in a new one. */
private class Tap(val at: Int, val share: Float)

/**
 * Of each new pixel. By area: how much of an old one is in it, in px where whole ones are, else of
 * 1. Bilinear: of the two around the centre, of 2048.
 */
private fun taps(old: Int, fresh: Int, byArea: Boolean, whole: Boolean): List<List<Tap>> {
    val step = old.toDouble() / fresh
    return List(fresh) { i ->
        if (byArea) {
            val low = i * step
            val high = min((i + 1) * step, old.toDouble())
            (low.toInt() until ceil(high).toInt()).mapNotNull { p ->
                val part = min(p + 1.0, high) - max(p.toDouble(), low)
                Tap(p, (if (whole) part else part / (high - low)).toFloat()).takeIf { part > 1e-3 }
            }
        } else {
            val centre = ((i + 0.5) * step - 0.5).toFloat()
            val first = floor(centre)
            val right = round(2048 * (centre - first))
            listOf(
                Tap(max(first.toInt(), 0), 2048 - right),
                Tap(min(first.toInt() + 1, old - 1), right),
            )
        }
    }
}

/** Of one channel of the row that begins at [start]. */
private fun across(photo: IntArray, start: Int, taps: List<Tap>, shift: Int): Float {
    var sum = 0f
    for (tap in taps) sum += tap.share * (photo[start + tap.at] shr shift and 255)
    return sum
}
