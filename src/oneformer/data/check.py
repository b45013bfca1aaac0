"""Records -> the faults that only show when files are decoded, looked for in a bounded number of them."""

from __future__ import annotations

from collections.abc import Sequence

from oneformer.data.decode import MAX_MPX, index_map, read_pair
from oneformer.data.record import Record
from oneformer.errors import DataError, UserError


def check_pixels(records: Sequence[Record], *, limit: int = 32, max_mpx: float = MAX_MPX) -> list[UserError]:
    """Decode at most `limit` records, spread evenly; one DataError for each that is broken or contradicts itself."""
    count = min(limit, len(records))
    faults: list[UserError] = []
    for place in range(count):
        record = records[place * len(records) // count]
        try:
            _, ids = read_pair(record, max_mpx=max_mpx)
            index_map(ids, record.segments, where=record.panoptic_path)
        except DataError as error:
            faults.append(error)
    return faults
