"""The journal of output: what functions print, as lines, kept on disk within a bound."""
