"""The ways in which the gateway speaks with containers: one file for each contract."""
