"""HTTP as a server speaks it: heads, bodies, connections, listeners, TLS; nothing here knows what a registry is."""
