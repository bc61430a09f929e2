"""Signing in through an organization's own OpenID Connect provider."""
