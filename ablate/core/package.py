"""Where this package lies."""

from pathlib import Path

FOLDER = Path(__file__).parents[1]
"""Of all its modules and data files."""
