"""What loggers and those who show their messages agree on."""

FILES_ONLY = {"files_only": True}
"""The `extra` of messages that are too long, or too special, for a terminal."""
