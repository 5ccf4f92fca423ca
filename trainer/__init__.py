"""Sensor history in, bundle out."""
