"""Frames of cells become text: pure functions."""
