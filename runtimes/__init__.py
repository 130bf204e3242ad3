"""What is copied into runtime images: one small shim a language. Nothing here imports Hearth."""
