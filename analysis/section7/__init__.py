"""The mathematics of Section 7: what two updates share, beside chance."""
