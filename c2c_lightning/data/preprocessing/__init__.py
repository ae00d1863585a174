"""Rows of sources to encoded examples, with a count of every row that is left out."""
