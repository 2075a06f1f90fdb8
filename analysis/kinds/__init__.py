"""Kinds of items, one module each: its dataclass holds the fields of an item's file, computes, prints and draws."""
