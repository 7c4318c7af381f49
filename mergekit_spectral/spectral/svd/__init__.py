"""How deltas are decomposed: `joint` for several deltas, on top of `eigen` for Gram matrices."""
