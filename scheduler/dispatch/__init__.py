"""The assignment pass: who gets which instance, and what is started or evicted for it."""
