"""Accuracy, learned from short trainings as latency is learned from the device."""

TRIALS = "trials.json"
"""what became of the trainings, in the folder of the search"""
