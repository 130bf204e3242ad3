"""Images that functions run on: finding them, building them, and reading their content."""
