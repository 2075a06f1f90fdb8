"""What the generated tables are about: the words of their columns, values and questions. No torch."""

from typing import NamedTuple


class Words(NamedTuple):
    """A column of text."""

    column: str
    values: tuple[str, ...]


class Numbers(NamedTuple):
    """A column of whole numbers, and how people compare them."""

    column: str
    low: int
    high: int
    more: str
    """More than so many: older than 30."""
    less: str
    most: str
    """The one with the largest number: the oldest player."""
    least: str


class Domain(NamedTuple):
    """What a table is about. Its first column is `name`."""

    one: str
    many: str
    words: tuple[Words, ...]
    numbers: tuple[Numbers, ...]


NAMES = (
    "Alder", "Amara", "Aspen", "Basil", "Birch", "Bolero", "Bramble", "Calypso", "Cedar", "Clover", "Comet", "Copper",
    "Coral", "Cricket", "Dahlia", "Ember", "Falcon", "Fern", "Garnet", "Hazel", "Heron", "Indigo", "Iris", "Ivory",
    "Jade", "Jasper", "Juniper", "Kestrel", "Laurel", "Linden", "Lotus", "Maple", "Marlow", "Meadow", "Mimosa",
    "Nimbus", "Nova", "Olive", "Onyx", "Opal", "Orchid", "Osprey", "Pearl", "Pepper", "Poppy", "Quartz", "Raven",
    "Robin", "Rowan", "Sable", "Saffron", "Sage", "Sorrel", "Sparrow", "Sterling", "Sumac", "Talon", "Teal",
    "Thistle", "Topaz", "Umber", "Violet", "Willow", "Wren", "Yarrow", "Zephyr",
)  # fmt: skip

COUNTRY = Words("country", ("Brazil", "Canada", "Egypt", "France", "Ghana", "India", "Italy", "Japan", "Kenya", "Peru"))
COLOR = Words("color", ("black", "blue", "brown", "gray", "green", "orange", "purple", "red", "white", "yellow"))
CITY = Words("city", ("Berlin", "Cairo", "Delhi", "Lima", "London", "Madrid", "Oslo", "Paris", "Rome", "Tokyo"))

DOMAINS = (
    Domain(
        "player",
        "players",
        (
            COUNTRY,
            Words("team", ("Bears", "Eagles", "Giants", "Hawks", "Lions", "Sharks", "Tigers", "Wolves")),
            Words("position", ("captain", "center", "defender", "goalkeeper", "guard", "striker", "winger")),
            Words("league", ("Alpha", "Central", "Delta", "North", "Omega", "South")),
        ),
        (
            Numbers("age", 17, 40, "older than", "younger than", "oldest", "youngest"),
            Numbers("height", 160, 215, "taller than", "shorter than", "tallest", "shortest"),
            Numbers(
                "points", 5, 95, "with more points than", "with fewer points than", "best scoring", "worst scoring"
            ),
            Numbers("salary", 20, 400, "with a salary above", "with a salary below", "best paid", "worst paid"),
        ),
    ),
    Domain(
        "book",
        "books",
        (
            COUNTRY,
            Words("genre", ("comedy", "crime", "fantasy", "history", "horror", "poetry", "romance", "science")),
            Words("language", ("Arabic", "Dutch", "English", "German", "Hindi", "Korean", "Spanish", "Swedish")),
            Words("publisher", ("Acorn", "Beacon", "Crown", "Harbor", "Lantern", "Summit", "Vintage")),
        ),
        (
            Numbers("pages", 80, 900, "longer than", "shorter than", "longest", "shortest"),
            Numbers("price", 4, 60, "dearer than", "cheaper than", "dearest", "cheapest"),
            Numbers("year", 1900, 2020, "newer than", "older than", "newest", "oldest"),
            Numbers("copies", 10, 500, "with more copies than", "with fewer copies than", "most common", "rarest"),
        ),
    ),
    Domain(
        "city",
        "cities",
        (
            COUNTRY,
            Words("climate", ("arctic", "dry", "humid", "mild", "rainy", "sunny", "tropical")),
            Words("region", ("coast", "delta", "desert", "forest", "lakes", "mountains", "plains")),
            Words("mayor", ("Adams", "Brooks", "Chen", "Diaz", "Evans", "Novak", "Okafor", "Silva")),
        ),
        (
            Numbers("population", 20, 900, "larger than", "smaller than", "largest", "smallest"),
            Numbers("altitude", 2, 3000, "higher than", "lower than", "highest", "lowest"),
            Numbers("year", 900, 1950, "founded after", "founded before", "newest", "oldest"),
            Numbers("parks", 1, 80, "with more parks than", "with fewer parks than", "greenest", "least green"),
        ),
    ),
    Domain(
        "hotel",
        "hotels",
        (
            CITY,
            Words("style", ("classic", "modern", "quiet", "rustic", "simple", "trendy")),
            Words("chain", ("Atlas", "Grand", "Haven", "Metro", "Palace", "Regent", "Star")),
            Words("view", ("bay", "garden", "hill", "lake", "park", "river", "sea")),
        ),
        (
            Numbers("rooms", 8, 400, "larger than", "smaller than", "largest", "smallest"),
            Numbers("price", 30, 600, "dearer than", "cheaper than", "dearest", "cheapest"),
            Numbers("rating", 1, 99, "rated above", "rated below", "best rated", "worst rated"),
            Numbers("year", 1900, 2020, "opened after", "opened before", "newest", "oldest"),
        ),
    ),
    Domain(
        "car",
        "cars",
        (
            COLOR,
            Words("maker", ("Apex", "Bolt", "Corsa", "Dune", "Helix", "Nord", "Pacer", "Volta")),
            Words("fuel", ("diesel", "electric", "gas", "hybrid", "hydrogen", "petrol")),
            Words("body", ("coupe", "pickup", "sedan", "truck", "van", "wagon")),
        ),
        (
            Numbers("speed", 110, 330, "faster than", "slower than", "fastest", "slowest"),
            Numbers("weight", 700, 3000, "heavier than", "lighter than", "heaviest", "lightest"),
            Numbers("price", 5, 150, "dearer than", "cheaper than", "dearest", "cheapest"),
            Numbers("year", 1960, 2024, "newer than", "older than", "newest", "oldest"),
        ),
    ),
    Domain(
        "worker",
        "workers",
        (
            CITY,
            Words("job", ("analyst", "clerk", "cook", "driver", "editor", "engineer", "nurse", "teacher")),
            Words("office", ("annex", "barn", "cellar", "loft", "studio", "tower")),
            Words("contract", ("daily", "fixed", "monthly", "open", "seasonal", "weekly")),
        ),
        (
            Numbers("age", 18, 67, "older than", "younger than", "oldest", "youngest"),
            Numbers("salary", 18, 190, "with a salary above", "with a salary below", "best paid", "worst paid"),
            Numbers("year", 1985, 2024, "hired after", "hired before", "newest", "most senior"),
            Numbers(
                "holidays", 5, 45, "with more holidays than", "with fewer holidays than", "most rested", "least rested"
            ),
        ),
    ),
    Domain(
        "ship",
        "ships",
        (
            COUNTRY,
            Words("cargo", ("coal", "corn", "fruit", "grain", "oil", "rice", "steel", "wood")),
            Words("port", ("Antwerp", "Boston", "Dakar", "Genoa", "Hamburg", "Lisbon", "Osaka", "Sydney")),
            Words("owner", ("Anchor", "Compass", "Meridian", "Neptune", "Tide", "Trident")),
        ),
        (
            Numbers("length", 20, 400, "longer than", "shorter than", "longest", "shortest"),
            Numbers("speed", 6, 45, "faster than", "slower than", "fastest", "slowest"),
            Numbers("crew", 3, 120, "with a crew above", "with a crew below", "best manned", "worst manned"),
            Numbers("year", 1930, 2024, "built after", "built before", "newest", "oldest"),
        ),
    ),
    Domain(
        "dish",
        "dishes",
        (
            COUNTRY,
            Words("course", ("breakfast", "dessert", "lunch", "main", "snack", "soup", "starter")),
            Words("taste", ("bitter", "mild", "salty", "savory", "sour", "spicy", "sweet")),
            Words("cook", ("Anna", "Bruno", "Carla", "Dmitri", "Elena", "Farid", "Greta", "Hugo")),
        ),
        (
            Numbers("calories", 60, 990, "richer than", "leaner than", "richest", "leanest"),
            Numbers("price", 2, 50, "dearer than", "cheaper than", "dearest", "cheapest"),
            Numbers("minutes", 3, 240, "slower than", "quicker than", "slowest", "quickest"),
            Numbers(
                "orders", 1, 300, "ordered more often than", "ordered less often than", "most popular", "least popular"
            ),
        ),
    ),
    Domain(
        "song",
        "songs",
        (
            Words("genre", ("blues", "country", "disco", "folk", "jazz", "metal", "pop", "rock")),
            Words("singer", ("Ada", "Bo", "Cleo", "Dev", "Etta", "Finn", "Gil", "Hana")),
            Words("mood", ("angry", "calm", "dark", "dreamy", "happy", "sad")),
            Words("label", ("Arrow", "Cobalt", "Echo", "Groove", "Mono", "Vinyl")),
        ),
        (
            Numbers("seconds", 90, 600, "longer than", "shorter than", "longest", "shortest"),
            Numbers("tempo", 50, 200, "faster than", "slower than", "fastest", "slowest"),
            Numbers(
                "plays", 10, 990, "played more often than", "played less often than", "most played", "least played"
            ),
            Numbers("year", 1950, 2024, "newer than", "older than", "newest", "oldest"),
        ),
    ),
    Domain(
        "animal",
        "animals",
        (
            COLOR,
            Words("kind", ("bear", "cat", "deer", "dog", "goat", "horse", "owl", "rabbit")),
            Words("food", ("fish", "fruit", "grass", "hay", "insects", "meat", "seeds")),
            Words("keeper", ("Abel", "Bea", "Cyrus", "Dora", "Emil", "Faye", "Gus")),
        ),
        (
            Numbers("age", 1, 50, "older than", "younger than", "oldest", "youngest"),
            Numbers("weight", 2, 900, "heavier than", "lighter than", "heaviest", "lightest"),
            Numbers("speed", 3, 110, "faster than", "slower than", "fastest", "slowest"),
            Numbers(
                "visitors",
                10,
                800,
                "with more visitors than",
                "with fewer visitors than",
                "most visited",
                "least visited",
            ),
        ),
    ),
)
"""Ten subjects with four columns of text and four of numbers each, of which a table has two and two."""
