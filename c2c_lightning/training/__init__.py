"""Lightning: training a fuser."""
