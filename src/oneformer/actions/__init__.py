"""A checked spec -> one command's work, told from top to bottom."""
