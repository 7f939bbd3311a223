"""Vex: a container registry in one file, on Python's standard library alone."""

VERSION = "1.0.0"
