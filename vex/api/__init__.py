"""The endpoints of the specification, and the one that gives Bearer tokens."""
