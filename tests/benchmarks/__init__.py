"""Side-by-side measurements of Forewarn; `make bench` runs them all."""
