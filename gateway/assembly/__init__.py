"""The composition root: every part of a gateway, made once and put together; settings, reload."""
