"""What is wrong with a recipe, of any of mergekit's methods, before it is run."""
