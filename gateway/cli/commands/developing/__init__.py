"""Commands for writing functions and trying them."""
