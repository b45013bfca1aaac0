"""A weight or graph file -> a callable that returns Outputs."""
