"""Tests of what a request means."""
