"""Helpers that tests share: checkpoints, adapters, matrices, and mergekit's commands."""
