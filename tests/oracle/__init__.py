"""Textbook NumPy: slow, obvious, and written without a look at the package."""
