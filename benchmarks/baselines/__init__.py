"""Methods that the benchmarks compare with; `benchmarks/inference` and `benchmarks/worlds` train and run them."""
