"""Recipes as text with lines and as sections, and findings about them.

This room needs mergekit's configuration and nothing else of the package but `errors`: it knows no
method, opens no model, and may be imported by every other room.
"""
