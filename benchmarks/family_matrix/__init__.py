"""The family matrix: every decoder-only class of the installed transformers as receiver and as sharer."""
