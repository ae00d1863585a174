"""The published layout of the paper's authors, to our format and back."""
