"""Who asks, and what that allows: users, tokens, passwords, failed logins."""
