"""The scoring of tiny_walks."""

from collections.abc import Mapping, Sequence

# where roads lead
ROADS = {
    "Abbey": "Dam Fort Lock Mill",
    "Acre": "Dell Quarry Vale",
    "Anvil": "Field Park",
    "Barn": "Forge Vale",
    "Beach": "Marsh Mill Moor",
    "Bell": "Croft Tower",
    "Bridge": "Quarry",
    "Cairn": "Tower",
    "Canal": "Isle Orchard",
    "Cave": "Dock Forge Pier Tower",
    "Chapel": "Ferry Meadow",
    "Cliff": "Heath",
    "Croft": "Bell",
    "Dam": "Abbey",
    "Dell": "Acre Hill",
    "Dock": "Cave Spring",
    "Farm": "Inn Park",
    "Ferry": "Chapel",
    "Field": "Anvil Lane Marsh",
    "Ford": "Glen Hall Pond",
    "Forge": "Barn Cave Hall",
    "Fort": "Abbey Gate Glen",
    "Gate": "Fort Lane Mill",
    "Glen": "Ford Fort",
    "Grove": "Mill",
    "Hall": "Ford Forge Lake",
    "Heath": "Cliff Lake Lock",
    "Hill": "Dell Kiln Rock",
    "Inn": "Farm Quarry",
    "Isle": "Canal",
    "Kiln": "Hill Mine",
    "Lake": "Hall Heath Meadow",
    "Lane": "Field Gate Pond",
    "Lock": "Abbey Heath Well",
    "Marsh": "Beach Field",
    "Meadow": "Chapel Lake Orchard Pier",
    "Mill": "Abbey Beach Gate Grove",
    "Mine": "Kiln Rock",
    "Moor": "Beach",
    "Orchard": "Canal Meadow",
    "Park": "Anvil Farm",
    "Pier": "Cave Meadow",
    "Pond": "Ford Lane Vale",
    "Quarry": "Acre Bridge Inn",
    "Rock": "Hill Mine",
    "Spring": "Dock",
    "Tower": "Bell Cairn Cave",
    "Vale": "Acre Barn Pond",
    "Well": "Lock",
}


def process_walk(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """-> whether the walk arrives, by roads alone; whether it is the shortest way."""
    places = results[0].split()
    steps = zip([doc["start"], *places], places, strict=False)
    by_roads = all(place in ROADS.get(before, "").split() for before, place in steps)
    arrives = bool(places) and by_roads and places[-1] == doc["goal"]
    return {"arrives": float(arrives), "exact_match": float(" ".join(places) == doc["way"])}
