"""Recipes as text with lines, as sections, and what is found in them."""
