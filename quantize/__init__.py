"""Float Bundle to INT8 Bundle within an accuracy budget. See ``edgeface quantize --help``."""
