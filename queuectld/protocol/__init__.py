"""What is said over the sockets; pure."""
