"""The container engine behind an interface: `base` is the contract, `docker` and `memory` keep it."""
