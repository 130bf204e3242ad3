"""HTTP as every room of the gateway uses it: problems, header fields, preferences, large answers in pieces."""
