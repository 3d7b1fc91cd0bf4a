"""Methods that the benchmarks compare with; `benchmarks/inference` trains and runs them."""
