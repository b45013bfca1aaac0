"""Model, loss and batches -> a fitted checkpoint."""
