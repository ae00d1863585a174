"""The trainable part: project, weigh, gate (paper section 3.3)."""
