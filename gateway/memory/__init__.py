"""The memory that requests and answers may take: one budget, its shares, and what the whole gateway is bounded by."""
