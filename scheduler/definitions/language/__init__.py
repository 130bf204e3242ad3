"""Parts that the sections of functions.yaml share: reader, places, types of values, rules, units, faults."""
