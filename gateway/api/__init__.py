"""The HTTP API, one room for each noun."""
