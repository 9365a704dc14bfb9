"""`queuectld` as a service of systemd."""
