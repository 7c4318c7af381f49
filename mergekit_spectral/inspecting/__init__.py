"""Measure the inputs of a merge, weight by weight, and compare them with each other."""
