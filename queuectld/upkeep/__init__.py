"""What `queuectld db` does, without a daemon."""
