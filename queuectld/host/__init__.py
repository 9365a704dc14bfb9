"""What concerns the host: its disk, its clock, the state directory."""
