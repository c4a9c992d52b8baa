package edgeface.app

import android.content.Context
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer
import edgeface.Contract
import edgeface.Decoder
import edgeface.Face
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject

/**
 * Faces in bitmaps, with a TFLite Bundle, INT8 or float32, whose files lie in the assets under
 * [folder].
 *
 * One thread at a time. [close] frees the model. INT8 files are for the CPU.
 */
class FaceDetector(
    private val context: Context,
    private val folder: String = "bundle",
    private val accelerator: Accelerator = Accelerator.CPU,
) : AutoCloseable {
    private lateinit var decoder: Decoder
    private lateinit var model: CompiledModel

    /** Opens the model; takes a while, so not on the main thread. */
    fun setup() {
        val manifest = context.assets.open("$folder/manifest.json").bufferedReader().use { it.readText() }
        decoder = Decoder(Contract.of(manifest))
        val options = CompiledModel.Options(accelerator)
        val file = JSONObject(manifest).getString("primary")
        model = CompiledModel.create(context.assets, "$folder/$file", options)
    }

    /** Best first, in px of [photo], which is upright. */
    fun detect(photo: Bitmap): List<Face> {
        val pixels = IntArray(photo.width * photo.height)
        photo.getPixels(pixels, 0, photo.width, 0, 0, photo.width, photo.height)
        val tensor = decoder.tensor(decoder.letterbox(pixels, photo.width, photo.height))
        val inputs = model.createInputBuffers()
        val outputs = model.createOutputBuffers()
        try {
            write(tensor, inputs[0])
            model.run(inputs, outputs)
            val found = decoder.contract.outputs.map { read(outputs[it.index], it.isInt8) }
            return decoder.decode(found, photo.width, photo.height)
        } finally {
            (inputs + outputs).forEach { it.close() }
        }
    }

    override fun close() {
        if (::model.isInitialized) model.close()
    }

    private fun write(tensor: ByteBuffer, input: TensorBuffer) {
        if (decoder.contract.input.isInt8) {
            input.writeInt8(ByteArray(tensor.capacity()).also { tensor.get(it) })
        } else {
            input.writeFloat(FloatArray(tensor.capacity() / 4).also { tensor.asFloatBuffer().get(it) })
        }
    }

    private fun read(output: TensorBuffer, isInt8: Boolean): ByteBuffer {
        if (isInt8) return ByteBuffer.wrap(output.readInt8())
        val values = output.readFloat()
        val bytes = ByteBuffer.allocateDirect(4 * values.size).order(ByteOrder.nativeOrder())
        bytes.asFloatBuffer().put(values)
        return bytes
    }
}
