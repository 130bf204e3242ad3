"""Commands of the machine that serves: run a gateway, check the machine, tidy it up."""
