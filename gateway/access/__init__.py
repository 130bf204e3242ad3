"""Who may call: keys, what each may do, and how much of it. ADR 0011 says why it is built this way."""
