"""The lowest floor: instances and their states, leases, prewarm pools, the transport and the container engine."""
