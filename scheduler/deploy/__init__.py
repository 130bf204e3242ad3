"""From a definition to a revision in service: code, image and workload, the registry, and trials of new revisions."""
