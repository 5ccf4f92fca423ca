"""The laws of Forewarn."""
