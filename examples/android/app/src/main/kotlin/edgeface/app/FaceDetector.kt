package edgeface.app

import android.content.Context
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import edgeface.Contract
import edgeface.Decoder
import edgeface.Face
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Faces in bitmaps, with a float32 TFLite Bundle whose files lie in the assets under [folder].
 *
 * One thread at a time. [close] frees the model.
 */
class FaceDetector(
    private val context: Context,
    private val folder: String = "bundle",
    private val accelerator: Accelerator = Accelerator.CPU,
) : AutoCloseable {
    private lateinit var decoder: Decoder
    private lateinit var model: CompiledModel

    /** Opens the model; takes a while, so not on the main thread. */
    fun setup(fileName: String) {
        val manifest = context.assets.open("$folder/manifest.json").bufferedReader().use { it.readText() }
        decoder = Decoder(Contract.of(manifest))
        val tensors = listOf(decoder.contract.input) + decoder.contract.outputs
        require(tensors.none { it.isInt8 }) { "input and outputs must be float32" }
        val options = CompiledModel.Options(accelerator)
        model = CompiledModel.create(context.assets, "$folder/$fileName", options)
    }

    /** Best first, in px of [photo], which is upright. */
    fun detect(photo: Bitmap): List<Face> {
        val pixels = IntArray(photo.width * photo.height)
        photo.getPixels(pixels, 0, photo.width, 0, 0, photo.width, photo.height)
        val tensor = decoder.tensor(decoder.letterbox(pixels, photo.width, photo.height))
        val values = FloatArray(tensor.capacity() / 4).also { tensor.asFloatBuffer().get(it) }
        val inputs = model.createInputBuffers()
        val outputs = model.createOutputBuffers()
        try {
            inputs[0].writeFloat(values)
            model.run(inputs, outputs)
            val found = decoder.contract.outputs.map { bytes(outputs[it.index].readFloat()) }
            return decoder.decode(found, photo.width, photo.height)
        } finally {
            (inputs + outputs).forEach { it.close() }
        }
    }

    override fun close() {
        if (::model.isInitialized) model.close()
    }

    private fun bytes(values: FloatArray): ByteBuffer {
        val buffer = ByteBuffer.allocateDirect(4 * values.size).order(ByteOrder.nativeOrder())
        buffer.asFloatBuffer().put(values)
        return buffer
    }
}
