"""The papers' analyses, on this suite's fine-tunes."""
