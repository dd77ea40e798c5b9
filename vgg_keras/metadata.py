"""What results, exports and caches say of the nets that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Metadata = Mapping[str, Any]

# Key of the answers for each image in a localisation result: the file format has this name.
ANSWERS_KEY = "pictures"


def members(metadata: Metadata) -> Sequence[dict[str, Any]]:
    """The metadata of each net that took part; a single net is its own only member."""
    return metadata.get("members", [metadata])


def join(of_nets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of several nets as one dictionary; of a single net its own."""
    return of_nets[0] if len(of_nets) == 1 else {"members": list(of_nets)}


def net_name(metadata: Metadata) -> str:
    """The path or name by which people know the net that `metadata` describes."""
    return str(next((metadata[key] for key in ("run", "weights", "model") if key in metadata), "?"))
