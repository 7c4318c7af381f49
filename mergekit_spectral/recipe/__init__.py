"""Recipes as text with lines and as sections, findings about them, and changes of their text.

This room needs mergekit's configuration and options, and of this package `errors` only. It knows no
method and opens no model. `host` and the rooms above it import it.
"""
