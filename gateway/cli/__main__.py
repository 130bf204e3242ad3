"""`python -m gateway.cli` is `hearth`."""

from gateway.cli import main

main(prog_name="hearth")
