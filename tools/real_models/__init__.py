"""Small real language models from Python packages, as Hugging Face folders."""
