"""How fast the agent is on this device: `edge-agent bench`."""
