"""Measurements of the analysis' speed and memory, at the size of GPT-3 175B."""
