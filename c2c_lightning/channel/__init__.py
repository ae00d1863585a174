"""The channel between sharer and receiver: quantised cache entries, and their serialised form."""
