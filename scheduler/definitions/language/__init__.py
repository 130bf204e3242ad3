"""Parts that all sections of functions.yaml share: reader, positions, key types, rules, units, faults."""
