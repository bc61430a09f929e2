"""Writes of routing: one function a verb, each atomic and with its audit entry.

Providers, deployments and model groups belong to the platform; only operators change them.
"""

from routing.services.deployments import create_deployment, remove_deployment, update_deployment
from routing.services.groups import create_model_group, remove_model_group, set_members, update_model_group
from routing.services.providers import create_provider, remove_provider, set_credentials, update_provider

__all__ = (
    "create_deployment",
    "create_model_group",
    "create_provider",
    "remove_deployment",
    "remove_model_group",
    "remove_provider",
    "set_credentials",
    "set_members",
    "update_deployment",
    "update_model_group",
    "update_provider",
)
