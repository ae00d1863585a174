"""Data files and hub data sets to rows."""
