"""The detector on public data and on simulated plants, beside simple contenders under the same protocol."""
