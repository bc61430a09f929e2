"""Messages to organizations: what is worth telling, through which channels, and their delivery."""
