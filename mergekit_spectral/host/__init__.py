"""mergekit from outside: the names in it that we rely on, and what we change in it.

These modules import the standard library only: they are loaded by every ``import torch`` and used
while mergekit's modules are being imported.
"""
