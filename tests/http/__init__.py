"""Tests of HTTP, TLS and sockets."""
