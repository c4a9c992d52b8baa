"""Float Bundle to INT8 Bundle within an accuracy budget. See ``python -m quantize --help``."""
