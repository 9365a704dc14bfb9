"""What `queuectl doctor` looks at."""
