"""A weight or graph file and photos -> the same network in fewer bits, and what that costs."""
