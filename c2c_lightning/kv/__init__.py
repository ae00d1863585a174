"""KV-caches: their geometry, one layer's keys and values, and the only code that touches cache classes."""
