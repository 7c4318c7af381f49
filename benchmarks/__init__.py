"""Measurements of time, memory and quality; modules that are commands have `--help`."""
