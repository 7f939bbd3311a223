"""Tests of rows, files and the data directory."""
