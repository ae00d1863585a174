"""`lightning predict`: a fuser answers a file of conversations."""
