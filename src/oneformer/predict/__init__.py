"""A weight file and photos -> results with maps, segments and overlays."""
