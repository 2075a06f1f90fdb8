"""Measurements of speed and memory, each beside what it is compared with. Tests never depend on a clock."""
