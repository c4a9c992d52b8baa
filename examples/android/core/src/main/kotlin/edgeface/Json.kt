package edgeface

/** Reads JSON into Map, List, String, Double, Boolean and null: enough of it for a manifest. */
internal class Json(private val text: String) {
    private var at = 0

    fun parse(): Any? {
        val value = value()
        skip()
        require(at == text.length) { "JSON: more than one value" }
        return value
    }

    private fun value(): Any? {
        skip()
        return when (peek()) {
            '{' -> members()
            '[' -> items()
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun members(): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        at++
        while (true) {
            skip()
            if (peek() == '}') break
            val key = string()
            skip()
            word(":", null)
            found[key] = value()
            skip()
            if (peek() != '}') word(",", null)
        }
        at++
        return found
    }

    private fun items(): List<Any?> {
        val found = ArrayList<Any?>()
        at++
        while (true) {
            skip()
            if (peek() == ']') break
            found.add(value())
            skip()
            if (peek() != ']') word(",", null)
        }
        at++
        return found
    }

    private fun string(): String {
        word("\"", null)
        val found = StringBuilder()
        while (peek() != '"') {
            if (peek() == '\\') at++ // escapes stand for themselves: contracts have none that matter
            found.append(peek())
            at++
        }
        at++
        return found.toString()
    }

    private fun number(): Double {
        val start = at
        while (at < text.length && text[at] in "+-.0123456789eE") at++
        return requireNotNull(text.substring(start, at).toDoubleOrNull()) { "JSON: damaged" }
    }

    private fun <T> word(word: String, value: T): T {
        require(text.startsWith(word, at)) { "JSON: damaged" }
        at += word.length
        return value
    }

    private fun skip() {
        while (at < text.length && text[at].isWhitespace()) at++
    }

    private fun peek(): Char {
        require(at < text.length) { "JSON: it ends too early" }
        return text[at]
    }
}
