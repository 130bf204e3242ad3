"""From a socket to a call: protocols, the fast path, the outermost app."""
