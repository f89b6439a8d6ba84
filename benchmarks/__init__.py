"""How fast is it? `python -m benchmarks --help`; never part of the tests."""
