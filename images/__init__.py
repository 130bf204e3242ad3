"""The images that Hearth brings along, and how they are built."""
