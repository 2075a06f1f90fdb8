"""Mirroring of records to a tracker, W&B by default. A process of its own does it, so that it costs no run anything."""
