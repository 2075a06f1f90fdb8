"""Made-up outputs of a system with their references: short, empty, with accents, quotes, numbers and dashes."""

import shutil

import pytest

PREDICTIONS = [
    "The Blue Spice is a cheap pub near the river.",
    "Near Café Rouge there is a family friendly pub called The Mill.",
    "Aromi",
    "",
    "It's a £20-25 place, and you can't book — “cosy”, though it cannot seat 1,000.",
]
REFERENCES = [
    ["Blue Spice is a cheap pub by the river.", "A cheap pub near the river is the Blue Spice."],
    ["The Mill is a family-friendly pub near Café Rouge."],
    ["Aromi is a coffee shop.", "Aromi sells coffee, and it's cheap.", "There is a coffee shop called Aromi."],
    ["There is nothing here."],
    [
        "Prices are £20-25, booking isn't possible, and it is cosy but cannot seat 1,000 guests.",
        'A "cosy" place for £20-25; you can\'t book.',
    ],
]

needs_java = pytest.mark.skipif(
    shutil.which("java") is None, reason="METEOR, ROUGE-L and CIDEr need Java, and there is none here"
)
