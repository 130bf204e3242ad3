"""Telling other servers that an accepted call has ended: signing what is sent, sending it, trying again."""
