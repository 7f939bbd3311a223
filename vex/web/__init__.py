"""The web interface: pages, and what they look at."""
