"""Questions about the map and their answers."""
