"""Batches of encoded rows: length buckets, epochs, streams; each resumable at any batch."""
