"""Files of new functions, and their entries in functions.yaml."""
