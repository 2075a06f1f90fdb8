"""What python -m analysis does with its options, and the files that it writes."""
