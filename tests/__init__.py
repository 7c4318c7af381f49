"""The tests. Benchmarks time the definitions in `tests.reference` and measure errors from them."""
