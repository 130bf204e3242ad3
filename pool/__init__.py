"""The lowest floor: instances and their states, leases, prewarm pools, the transport and the container engine."""

__version__ = "0.2.0"
"""The version of Hearth. pyproject.toml, the command, the API's document and the gateway's image read it here."""
