"""Network outputs and targets -> losses."""
