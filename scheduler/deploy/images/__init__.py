"""Images that functions run on: finding, building and looking into them."""
