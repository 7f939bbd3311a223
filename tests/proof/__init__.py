"""What breaks and what attacks: small amounts here, large ones by environment variables."""
