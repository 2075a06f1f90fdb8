"""Data of one's own, and data sets of the hub: task=table and task=hub. No torch."""
