package edgeface

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64
import kotlin.math.abs
import kotlin.system.exitProcess

/** `java -jar vectors.jar FOLDER`: the decoder gives what the golden vectors in FOLDER say. */
fun main(arguments: Array<String>) {
    val vectors = Vectors()
    val files = File(arguments.single()).listFiles { file -> file.extension == "json" }.orEmpty()
    try {
        require(files.isNotEmpty()) { "no vectors in ${arguments.single()}" }
        for (file in files.sorted()) {
            for (case in Json(file.readText()).parse() as List<*>) {
                vectors.check(file.name, case as Map<*, *>)
            }
        }
    } catch (error: IllegalArgumentException) {
        System.err.println("error: ${error.message}")
        exitProcess(1)
    }
    println("Kotlin: ${vectors.checked} checks passed")
}

private class Vectors {
    var checked = 0

    fun check(file: String, case: Map<*, *>) {
        val name = "$file, ${case["name"]}"
        val decoder = Decoder(Contract.of(case))
        val (width, height) = numbers(case["photo"]).map { it.toInt() }
        val fit = decoder.fit(width, height)
        val sides = listOf(fit.width, fit.height, fit.canvasWidth, fit.canvasHeight)
        val wanted = numbers(case["fitted"]) + numbers(case["canvas"])
        expect("$name: fit", sides.map { it.toDouble() }, wanted, 0.0)
        case["pixels"]?.let { checkPixels(name, decoder, case, width, height) }
        case["faces"]?.let { checkFaces(name, decoder, case, width, height) }
    }

    private fun checkPixels(name: String, decoder: Decoder, case: Map<*, *>, width: Int, height: Int) {
        val rgb = bytes(case["rgb"]).map { it.toInt() and 255 }
        val photo = IntArray(width * height) {
            rgb[3 * it] shl 16 or (rgb[3 * it + 1] shl 8) or rgb[3 * it + 2]
        }
        val canvas = decoder.letterbox(photo, width, height)
        fun values(data: ByteArray) = data.map { (it.toInt() and 255).toDouble() }
        expect("$name: pixels", values(canvas), values(bytes(case["pixels"])), 0.0)
        val tensor = decoder.tensor(canvas).asFloatBuffer()
        val floats = List(canvas.size) { tensor.get(it).toDouble() }
        expect("$name: tensor", floats, values(canvas), 0.0)
    }

    private fun checkFaces(name: String, decoder: Decoder, case: Map<*, *>, width: Int, height: Int) {
        val outputs = (case["outputs"] as List<*>).map {
            ByteBuffer.wrap(bytes(it)).order(ByteOrder.LITTLE_ENDIAN)
        }
        val faces = decoder.decode(outputs, width, height)
        val points = faces.flatMap { face -> face.landmarks.flatMap { listOf(it.x, it.y) } }
        expect("$name: scores", faces.map { it.score }, all(case, "score"), 1e-4)
        val boxes = faces.flatMap { listOf(it.x1, it.y1, it.x2, it.y2) }
        expect("$name: boxes", boxes, all(case, "box"), 0.05)
        expect("$name: landmarks", points, all(case, "landmarks"), 0.05)
    }

    private fun expect(what: String, found: List<Double>, wanted: List<Double>, most: Double) {
        require(found.size == wanted.size) { "$what: ${found.size} values, ${wanted.size} are right" }
        val apart = found.zip(wanted) { a, b -> abs(a - b) }.maxOrNull() ?: 0.0
        require(apart <= most) { "$what: $apart apart, at most $most is right" }
        checked++
    }

    private fun all(case: Map<*, *>, key: String) =
        numbers((case["faces"] as List<*>).map { (it as Map<*, *>)[key] })

    private fun numbers(value: Any?): List<Double> = when (value) {
        is Double -> listOf(value)
        is List<*> -> value.flatMap(::numbers)
        else -> emptyList()
    }

    private fun bytes(text: Any?) = Base64.getDecoder().decode(text as String)
}
