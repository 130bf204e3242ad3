"""The subcommands of `hearth`, in rooms."""
