"""The transformation oracle (paper, section 3.2.2 and Fig. 3): can one model's cache be mapped to another's?

Axes: F aligned tokens of a batch, H KV heads, D head width, L pairs of layers.
"""
