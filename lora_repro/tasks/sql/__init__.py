"""The generated task `sql`: questions about tables, to be answered by queries that are run. No torch."""
