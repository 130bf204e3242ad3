"""The middle floor: decides what runs where and when. It knows functions; it does not know HTTP or Docker."""
