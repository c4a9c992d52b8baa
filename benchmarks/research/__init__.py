"""Comparisons that a choice of this project rests on; nothing here ships."""
