"""Segments and scores -> pictures, tables and a self-contained HTML page."""
