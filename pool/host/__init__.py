"""The kernel of the host: namespaces, cgroups, firewall, users."""
