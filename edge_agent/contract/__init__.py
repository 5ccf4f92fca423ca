"""What trainer and agent share: types, errors, grid, windows, scaling, scoring, alarms and the bundle.

Nothing here knows a clock, a network, a metric or a log, and nothing here imports more than the standard
library and numpy.
"""
