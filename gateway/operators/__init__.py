"""The operator area at ``/operator/``: the pages of the people who run the platform."""
