"""`hearth doctor`: what this machine has, tried out."""
