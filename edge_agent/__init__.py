"""The daemon beside the machine: readings in, alarm events out."""
