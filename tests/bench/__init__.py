"""The benchmark: Vex beside another registry, in turns, on one machine. Run with `python3 -m tests.bench`; not part of
the tests.
"""
