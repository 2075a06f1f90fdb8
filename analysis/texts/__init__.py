"""Any system's generated texts beside their references: the official files, and their scores. No torch."""
