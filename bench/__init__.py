"""The load-testing script: how fast calls are answered, beside what the same calls cost without a gateway."""
