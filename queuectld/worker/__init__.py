"""The process that runs one command at a time, watches it, and ends its whole tree; it outlives its daemon."""
