"""Real English texts from a Python package, as JSON lines."""
