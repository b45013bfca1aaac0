"""The spec tree -> schemas in two dialects, templates, tables, and what each action needs."""
