"""Image and annotation files -> records -> samples -> batches."""
