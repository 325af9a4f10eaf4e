"""SVG diagrams with a layout of our own: the same bytes on every machine."""
