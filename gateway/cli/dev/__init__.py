"""Parts of `hearth dev`."""
