"""Access: keys, their scopes and their limits. ADR 0011 says why it is built this way."""
