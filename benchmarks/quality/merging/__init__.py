"""Merges of the fine-tunes, through mergekit-yaml, and their scores."""
