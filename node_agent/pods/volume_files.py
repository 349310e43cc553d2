"""What the files of configMap, secret, downwardAPI and projected volumes hold: pure."""

from collections.abc import Mapping, Sequence

import msgspec

from api.kinds.pods import PodSpec
from api.kinds.volumes import DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume, VolumeProjection
from node_agent.pods.containers import file_owner
from node_agent.pods.environment import (
    ConfigMissing,
    Facts,
    config_map_data,
    field_value,
    resource_value,
    secret_data,
)

DEFAULT_MODE = 0o644
_TOKEN_MODE = 0o600


class File(msgspec.Struct, frozen=True):
    """One file of a volume. owner: a user, None for root."""

    content: bytes
    mode: int = DEFAULT_MODE
    owner: int | None = None


class TokenRequest(msgspec.Struct, frozen=True):
    """A service account token that a projected volume wants."""

    audience: str
    expiration_s: int


def tokens_wanted(volume: Volume) -> tuple[TokenRequest, ...]:
    """Return the tokens that a volume's files need."""
    if volume.projected is None:
        return ()
    sources = (source.service_account_token for source in volume.projected.sources)
    return tuple(TokenRequest(s.audience, s.expiration_seconds or 3600) for s in sources if s)


def render_files(volume: Volume, facts: Facts, tokens: Mapping[TokenRequest, str]) -> dict[str, File]:
    """Return path inside the volume -> file; raises ConfigMissing where something named is not there.

    tokens: what ``tokens_wanted`` asked for.
    """
    if volume.config_map:
        config = volume.config_map
        data = config_map_data(facts, config.name, optional=bool(config.optional))
        return _pick(data, config.items, _mode(config.default_mode), optional=bool(config.optional))
    if volume.secret:
        secret = volume.secret
        data = secret_data(facts, secret.secret_name, optional=bool(secret.optional))
        return _pick(data, secret.items, _mode(secret.default_mode), optional=bool(secret.optional))
    if volume.downward_api:
        return _downward(volume.downward_api.items, facts, _mode(volume.downward_api.default_mode))
    assert volume.projected is not None, volume
    return _projected(volume.projected, facts, tokens)


def _mode(given: int | None) -> int:
    return DEFAULT_MODE if given is None else given


def _pick(
    data: Mapping[str, bytes] | None, items: Sequence[KeyToPath], mode: int, *, optional: bool
) -> dict[str, File]:
    """Take the chosen keys, or all of them under their own names."""
    values = data or {}
    if not items:
        return {key: File(content, mode) for key, content in values.items()}
    files = {}
    for item in items:
        if item.key in values:
            files[_checked(item.path)] = File(values[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            raise ConfigMissing(f"references non-existent config key: {item.key}")
    return files


def _downward(items: Sequence[DownwardAPIVolumeFile], facts: Facts, mode: int) -> dict[str, File]:
    files = {}
    for item in items:
        if item.field_ref:
            text = field_value(item.field_ref, facts)
        elif item.resource_field_ref:
            text = resource_value(item.resource_field_ref, facts, "")
        else:
            raise ConfigMissing(f"downwardAPI file {item.path}: this node does not know its source")
        files[_checked(item.path)] = File(text.encode(), mode if item.mode is None else item.mode)
    return files


def _projected(source: ProjectedVolumeSource, facts: Facts, tokens: Mapping[TokenRequest, str]) -> dict[str, File]:
    files: dict[str, File] = {}
    for each in source.sources:
        files |= _projection(each, facts, tokens, _mode(source.default_mode))
    return files


def _projection(each: VolumeProjection, facts: Facts, tokens: Mapping[TokenRequest, str], mode: int) -> dict[str, File]:
    if each.config_map:
        optional = bool(each.config_map.optional)
        data = config_map_data(facts, each.config_map.name, optional=optional)
        return _pick(data, each.config_map.items, mode, optional=optional)
    if each.secret:
        optional = bool(each.secret.optional)
        data = secret_data(facts, each.secret.name, optional=optional)
        return _pick(data, each.secret.items, mode, optional=optional)
    if each.downward_api:
        return _downward(each.downward_api.items, facts, mode)
    if each.service_account_token:
        token = each.service_account_token
        wanted = TokenRequest(token.audience, token.expiration_seconds or 3600)
        return {_checked(token.path): _token_file(tokens[wanted], facts.pod.spec, mode)}
    raise ConfigMissing("projected volume: clusterTrustBundle and podCertificate are not supported on this node")


def _token_file(token: str, spec: PodSpec, mode: int) -> File:
    """Return a file that the pod's processes can read, and nobody else where the pod says who they are."""
    owner, context = file_owner(spec), spec.security_context
    known = owner is not None or (context is not None and context.fs_group is not None)
    return File(token.encode(), _TOKEN_MODE if known else mode, owner)


def _checked(path: str) -> str:
    """Return ``path`` if it stays inside the volume."""
    if path.startswith("/") or ".." in path.split("/"):
        raise ConfigMissing(f"path {path!r} leads out of the volume")
    return path
