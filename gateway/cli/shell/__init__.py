"""Parts of `hearth shell`."""
