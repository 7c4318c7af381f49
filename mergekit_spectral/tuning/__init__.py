"""Find the parameters of a merge on the user's own examples."""
