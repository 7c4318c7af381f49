"""The command `mergekit-spectral`."""
