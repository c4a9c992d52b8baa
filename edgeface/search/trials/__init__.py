"""Accuracy in a search: short trainings, and a model fitted to their results."""

TRIALS = "trials.json"
"""file with the results of the trainings, in the search's folder"""
