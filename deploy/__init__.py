"""What runs around the programs: units, configurations, dashboards, and the demonstration."""
