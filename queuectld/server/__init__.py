"""Listens to clients."""
