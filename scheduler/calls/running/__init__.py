"""Running accepted calls: leasing them, carrying them out, recording their ends."""
