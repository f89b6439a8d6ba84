"""Which words does Python's own source use most?"""
