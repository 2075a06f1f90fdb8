"""The record of a run on disk: written, read and locked. Only adapter.py and tensors.py import torch."""
