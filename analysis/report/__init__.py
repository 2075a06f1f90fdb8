"""The report of a store as one typed structure: its claims, items, runs. analysis/render/report/ writes the page."""
