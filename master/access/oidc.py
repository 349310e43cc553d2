"""The documents by which others find the keys of our service-account tokens.

Source: OpenID Connect Discovery 1.0, of which relying parties of service-account tokens need these fields alone.
"""

from typing import Any

from master.access.signing import KeyRing

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/openid/v1/jwks"


def documents(issuer: str, keys: KeyRing, address: str) -> dict[str, tuple[str, Any]]:
    """Return path -> (content type, document); address: "ip:port" of the API, where the keys can be fetched."""
    configuration = {
        "issuer": issuer,
        "jwks_uri": f"https://{address}{KEYS}",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(keys.algorithms),
    }
    return {CONFIGURATION: ("application/json", configuration), KEYS: ("application/jwk-set+json", keys.jwks())}
