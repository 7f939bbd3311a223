"""Tests of the endpoints of the specification."""
