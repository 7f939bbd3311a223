"""Tests of the running whole."""
