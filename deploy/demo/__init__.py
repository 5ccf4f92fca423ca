"""The demonstration: a simulated pump, a bundle, a broker, the agent, a fault and its alarm, as separate processes."""
