"""Makes the .venv of a checkout. All else that sets a machine up is in gateway/setup."""
