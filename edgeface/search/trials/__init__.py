"""Accuracy, learned from short trainings as latency is learned from the device."""
