"""Fine-tunes of the base, one for each task."""
