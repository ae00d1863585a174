"""The oracle experiments of the paper, as functions of models and caches."""
