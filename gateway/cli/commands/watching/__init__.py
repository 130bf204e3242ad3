"""Commands that show what a gateway has and does."""
