"""Kept caches of frozen models: the prefill of a row that is used again is computed once (`model.cache_frozen`)."""
