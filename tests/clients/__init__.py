"""Tests with real clients and proxies."""
