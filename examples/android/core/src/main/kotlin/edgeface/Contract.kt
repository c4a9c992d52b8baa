package edgeface

/** What manifest.json says under `contract`. */
class Contract private constructor(fields: Fields) {
    val signature: String? = fields.optional("signature")
    val fit = FitRule(fields.part("fit"))
    val input = Tensor(fields.part("input"))
    val outputs = fields.list("outputs").map(::Tensor)
    val boxes = BoxRule(fields.part("boxes"))
    val results = ResultRule(fields.part("results"))

    companion object {
        /** [text]: the content of manifest.json. */
        fun of(text: String): Contract = of(Json(text).parse())

        internal fun of(manifest: Any?): Contract {
            val contract = (manifest as? Map<*, *>)?.get("contract")
            requireNotNull(contract) { "the manifest has no contract: export the model again" }
            return Contract(Fields(contract as Map<*, *>))
        }
    }
}

/** How a photo is laid on the canvas. */
class FitRule internal constructor(fields: Fields) {
    val value = fields.whole("value")
    val shrinkByArea = fields.text("shrink") == "area"
    val enlargeByArea = fields.text("enlarge") == "area"
    val longSidePx: Int? = fields.optional<Double>("long_side_px")?.toInt()
    val multiplePx = fields.whole("multiple_px")
}

/** The input, or one output. */
class Tensor internal constructor(fields: Fields) {
    /** cls, box or kps; null: the input */
    val kind: String? = fields.optional("kind")
    val stride = fields.optional<Double>("stride")?.toInt() ?: 1
    val name = fields.text("name")
    val index = fields.whole("index")
    val isInt8 = fields.text("dtype") == "int8"
    val nchw = fields.text("layout") == "NCHW"
    val scale = fields.number("scale")
    val zeroPoint = fields.number("zero_point")

    /** null: any */
    private val shape = fields.numbers("shape").map { it?.toInt() }
    val channels = requireNotNull(if (nchw) shape[1] else shape[3])
    val height = if (nchw) shape[2] else shape[1]
    val width = if (nchw) shape[3] else shape[2]
}

/** From box values to a box. */
class BoxRule internal constructor(fields: Fields) {
    val anchors = fields.whole("anchors")
    val offset = fields.number("offset")
    val prior = fields.numbers("prior").map { requireNotNull(it) }
    val ssd = when (val coding = fields.text("coding")) {
        "distance" -> false
        "ssd" -> true
        else -> throw IllegalArgumentException("unknown box coding $coding")
    }
}

/** From candidates to faces. */
class ResultRule internal constructor(fields: Fields) {
    val score = fields.number("score")
    val nmsIou = fields.number("nms_iou")
    val candidates = fields.whole("candidates")
}

internal class Fields(@PublishedApi internal val members: Map<*, *>) {
    fun part(key: String) = Fields(get<Map<*, *>>(key))
    fun list(key: String) = get<List<*>>(key).map { Fields(it as Map<*, *>) }
    fun numbers(key: String): List<Double?> = get<List<*>>(key).map { it as Double? }
    fun number(key: String): Double = get(key)
    fun whole(key: String): Int = number(key).toInt()
    fun text(key: String): String = get(key)

    inline fun <reified T> optional(key: String): T? = members[key] as T?
    private inline fun <reified T> get(key: String): T =
        requireNotNull(members[key] as? T) { "the contract has no $key" }
}
