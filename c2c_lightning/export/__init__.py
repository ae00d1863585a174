"""Files: the fuser directory and the authors' published layout."""
