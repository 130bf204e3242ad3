"""The SQL, one module for each kind of row."""
