"""Facts of HTTP that every room of the gateway uses: problems, header fields, preferences."""
