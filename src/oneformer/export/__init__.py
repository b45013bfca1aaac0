"""A checkpoint -> a graph file that computes the same, and the proof that it does."""
