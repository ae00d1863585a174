"""A tiny pair of language models and a made-up world, shipped with the package."""
