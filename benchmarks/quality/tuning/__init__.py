"""How much of the best λ's gain `mergekit-spectral tune` finds, with how many examples."""
