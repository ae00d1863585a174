"""Generator of short private texts with questions, by rule: names, values and relations are held out apart."""
