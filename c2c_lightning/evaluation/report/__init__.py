"""Reports: predictions to numbers, tables and pictures."""
