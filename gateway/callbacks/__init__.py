"""Callbacks, which tell other servers that an accepted call has ended: signing, sending, and trying again."""
