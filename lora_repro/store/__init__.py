"""The record of a run on disk: written, read and locked. Only adapter.py imports torch."""
