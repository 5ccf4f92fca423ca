"""Readings of a long file, one a row, put together to rows of all sensors."""

import numpy as np

from edge_agent.contract.types import Float32, Float64, Int64


def readings_to_rows(
    asset: Int64, time: Float64, sensor: Int64, value: Float32, sensor_count: int
) -> tuple[Int64, Float32]:
    """Put readings of the same asset and time into one row.

    The k-th reading of the same sensor at the same time goes into the k-th row of that time, so none is lost and the
    later one stays the later one. Rows stand in the order in which their first reading stands.

    Args:
        asset: (n,) index of the asset.
        time: (n,) seconds since the epoch.
        sensor: (n,) index of the sensor, 0 to `sensor_count` - 1.
        value: (n,) float32.
        sensor_count: F.

    Returns:
        (m,) index of the first reading of each row, ascending, and (m, F) float32 with NaN where none was.
    """
    order = np.lexsort((sensor, time, asset))
    same = (np.diff(asset[order]) == 0) & (np.diff(time[order]) == 0) & (np.diff(sensor[order]) == 0)
    position = np.arange(len(order))
    starts = (
        np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), position, 0))
        if len(order)
        else position
    )
    repeat = np.empty(len(order), np.int64)
    repeat[order] = position - starts
    order = np.lexsort((repeat, time, asset))
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (np.diff(asset[order]) != 0) | (np.diff(time[order]) != 0) | (np.diff(repeat[order]) != 0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(fresh) - 1
    # lexsort is stable, so the first of a group is its earliest reading.
    earliest = order[fresh]
    rank = np.empty(len(earliest), np.int64)
    by_arrival = np.argsort(earliest)
    rank[by_arrival] = np.arange(len(earliest))
    rows = np.full((len(earliest), sensor_count), np.nan, np.float32)
    rows[rank[group], sensor] = value
    return earliest[by_arrival], rows
