"""What brings Hearth up on a machine: the engine and what talks to it before the gateway does."""
