"""Base models: their shapes, their files on this machine, and how they are loaded."""
