"""Measurements of speed: ratios side by side in one run, never a test with a clock."""
