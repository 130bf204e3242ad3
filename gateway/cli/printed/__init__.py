"""Shows what functions print: lines for people, safe for a terminal."""
