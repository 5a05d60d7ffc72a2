"""Tables to SVG: how figures look, and one file a kind of figure."""
