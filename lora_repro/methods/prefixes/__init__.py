"""Trained vectors of tokens that are put before and behind the input: configuration, layout, layers."""
