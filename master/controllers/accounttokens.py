"""Secrets of type service-account-token: filled with a token that does not expire, gone with their account."""

import base64
import contextlib
import logging
from collections.abc import Iterable

from msgspec.structs import replace

from api.errors import NotFound
from api.kinds.core import Secret, ServiceAccount
from api.meta import Resource
from client.resources import Resources
from client.runner import Runner
from master.access.tokens import ServiceAccountTokens
from master.controllers.context import Context
from master.controllers.removal import remove

log = logging.getLogger(__name__)

SECRET_TYPE = "kubernetes.io/service-account-token"
NAME = "kubernetes.io/service-account.name"
UID = "kubernetes.io/service-account.uid"


def filled(secret: Secret, account: ServiceAccount, tokens: ServiceAccountTokens, root_ca: str) -> Secret:
    """Return the secret with everything that a client needs; the same object if it has it."""
    data = dict(secret.data)
    if not data.get("token"):
        data["token"] = _base64(tokens.issue_legacy(account, secret.metadata.name))
    data["namespace"] = _base64(account.metadata.namespace)
    if root_ca:
        data["ca.crt"] = _base64(root_ca)
    annotations = {**secret.metadata.annotations, UID: account.metadata.uid}
    if (data, annotations) == (secret.data, secret.metadata.annotations):
        return secret
    return replace(secret, metadata=replace(secret.metadata, annotations=annotations), data=data)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class AccountTokenController:
    """Fills the secrets that ask for it by their type and annotation."""

    def __init__(self, context: Context) -> None:
        self._tokens = context.tokens
        self._root_ca = context.config.root_ca
        self._secrets = context.informers.of(Secret)
        self._accounts = context.informers.of(ServiceAccount)
        self.runner = Runner(
            "serviceaccount-token",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=1,
            clock=context.clock,
        )
        self._secrets.subscribe(self.runner.queue.add, _is_token)
        self._accounts.subscribe(self.runner.queue.add, self._secrets_of)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _secrets_of(self, before: ServiceAccount | None, after: ServiceAccount | None) -> Iterable[str]:
        account = after if after is not None else before
        assert account is not None
        meta = account.metadata
        return [
            f"{meta.namespace}/{each.metadata.name}"
            for each in self._secrets
            if each.type == SECRET_TYPE
            and each.metadata.namespace == meta.namespace
            and each.metadata.annotations.get(NAME) == meta.name
        ]

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Fill one secret, or remove it if its account is gone."""
        secret = self._secrets.get(key)
        if secret is None or secret.type != SECRET_TYPE or secret.metadata.deletion_timestamp or self._tokens is None:
            return None
        meta = secret.metadata
        account = self._accounts.get(f"{meta.namespace}/{meta.annotations.get(NAME, '')}")
        uid = meta.annotations.get(UID, "")
        if account is None or uid not in ("", account.metadata.uid):
            await remove(api, secret)
            log.info("token secret of a service account that is gone removed name=%s", key)
            return None
        complete = filled(secret, account, self._tokens, self._root_ca)
        if complete is not secret:
            with contextlib.suppress(NotFound):
                await api.update(complete)
        return None


def _is_token(before: Resource | None, after: Resource | None) -> Iterable[str]:
    del before
    if not isinstance(after, Secret) or after.type != SECRET_TYPE:
        return ()
    return (f"{after.metadata.namespace}/{after.metadata.name}",)
