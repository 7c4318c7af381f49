"""What inputs of a merge are like, weight by weight, and how they go together."""
