"""Train, prove, ship and use Cache-to-Cache fusers (arXiv 2510.03215)."""
