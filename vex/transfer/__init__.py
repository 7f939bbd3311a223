"""Images in and out, as a client of other registries and of archives."""
