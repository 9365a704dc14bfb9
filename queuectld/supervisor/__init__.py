"""The pool of workers: given work, watched, replaced, and ended."""
