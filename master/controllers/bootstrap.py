"""Bootstrap tokens: the config map ``cluster-info`` signed with each of them, and the expired ones removed.

Whoever wants to join and knows a token reads cluster-info without a name, and sees by the signature that the address
and the authority in it come from somebody who knows the token, too. Source: kubernetes.io, "Authenticating with
Bootstrap Tokens"; RFC 7515 with its content left out.
"""

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from api.kinds.core import ConfigMap, Secret
from api.meta import ObjectMeta, Resource
from client.clock import seconds_of
from client.resources import Resources
from client.runner import Runner
from master.access.bootstrap_tokens import NAMESPACE, SECRET_TYPE, SIGNS, fields_of, is_expired, is_token
from master.access.signing import to_base64url
from master.controllers.context import Context
from master.controllers.removal import remove

log = logging.getLogger(__name__)

CLUSTER_INFO = "cluster-info"
PUBLIC = "kube-public"
KUBECONFIG = "kubeconfig"
SIGNATURE = "jws-kubeconfig-"


def render_kubeconfig(address: str, root_ca: str) -> str:
    """Return the kubeconfig that says where the cluster is and whom to trust; no user in it."""
    authority = base64.b64encode(root_ca.encode()).decode()
    cluster = {"name": "", "cluster": {"server": f"https://{address}", "certificate-authority-data": authority}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [], "users": []}
    return json.dumps(config, indent=2) + "\n"  # JSON is YAML


def sign_detached(content: str, token_id: str, token_secret: str) -> str:
    """Return the signature of ``content`` by a token, as a token of three parts whose middle is left out."""
    head = to_base64url(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{head}.{to_base64url(content.encode())}".encode()
    mac = hmac.new(f"{token_id}.{token_secret}".encode(), signed, hashlib.sha256).digest()
    return f"{head}..{to_base64url(mac)}"


def plan_signatures(kubeconfig: str, tokens: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the signatures that cluster-info should have, by key; tokens: the fields of those that may sign."""
    return {
        f"{SIGNATURE}{each['token-id']}": sign_detached(kubeconfig, each["token-id"], each["token-secret"])
        for each in tokens
    }


class BootstrapController:
    """Signs, and removes what has expired."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._config = context.config
        self._secrets = context.informers.of(Secret)
        self._maps = context.informers.of(ConfigMap)
        self.runner = Runner(
            "bootstrap",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=1,
            clock=context.clock,
        )
        self._secrets.subscribe(self.runner.queue.add, _of_token)
        self._maps.subscribe(self.runner.queue.add, _of_info)
        self.runner.queue.add(CLUSTER_INFO)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring cluster-info up to date with all tokens."""
        del key
        now, signing, next_s = self._clock.time(), [], None
        for secret in self._secrets:
            if secret.metadata.namespace != NAMESPACE or secret.type != SECRET_TYPE:
                continue
            fields = fields_of(secret)
            if is_expired(fields, now):
                await remove(api, secret)
                log.info("expired bootstrap token removed id=%s", fields.get("token-id", ""))
                continue
            if fields.get("expiration"):
                left = seconds_of(fields["expiration"]) - now
                next_s = left if next_s is None else min(left, next_s)
            if is_token(secret, fields) and fields.get(SIGNS) == "true" and not secret.metadata.deletion_timestamp:
                signing.append(fields)
        await self._publish(api, signing)
        return next_s

    async def _publish(self, api: Resources, signing: Iterable[Mapping[str, str]]) -> None:
        present = self._maps.get(f"{PUBLIC}/{CLUSTER_INFO}")
        if present is not None:
            # Somebody may have published another address on purpose: it is signed as it is.
            kubeconfig = present.data.get(KUBECONFIG, "")
        elif self._config.api_address and self._config.root_ca:
            kubeconfig = render_kubeconfig(self._config.api_address, self._config.root_ca)
        else:
            return
        others = present.data if present is not None else {}
        kept = {name: value for name, value in others.items() if not name.startswith(SIGNATURE)}
        data = {**kept, KUBECONFIG: kubeconfig, **plan_signatures(kubeconfig, signing)}
        if present is None:
            await api.create(ConfigMap(metadata=ObjectMeta(name=CLUSTER_INFO, namespace=PUBLIC), data=data))
        elif data != present.data:
            await api.update(replace(present, data=data))


def _of_token(before: Resource | None, after: Resource | None) -> Iterable[str]:
    for each in (before, after):
        if isinstance(each, Secret) and each.type == SECRET_TYPE and each.metadata.namespace == NAMESPACE:
            return (CLUSTER_INFO,)
    return ()


def _of_info(before: Resource | None, after: Resource | None) -> Iterable[str]:
    obj = after if after is not None else before
    assert obj is not None
    return (CLUSTER_INFO,) if (obj.metadata.namespace, obj.metadata.name) == (PUBLIC, CLUSTER_INFO) else ()
