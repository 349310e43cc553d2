"""The token subresource of service accounts: ``kubectl create token``, and how node agents get what pods mount."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from api import codec
from api.errors import BadRequest, Fault, Forbidden, conflict, invalid, not_found
from api.faults import wrong
from api.kinds.authentication import BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus
from api.kinds.core import Node, Secret, ServiceAccount
from api.kinds.pods import Pod
from api.kinds.table import Kind, Table
from api.meta import Resource
from master import strictness
from master.access.tokens import ServiceAccountTokens
from master.admission.chain import Attributes, Chain
from master.lifecycle import timestamp
from master.lookup import Lookup
from master.objects import StoredObject, to_store
from master.rest.seam import WriteOptions, Written

GROUP = "authentication.k8s.io"
SHORTEST_S, LONGEST_S = 600, 1 << 32
DEFAULT_S = 3600
KIND = Kind(group=GROUP, kind="TokenRequest", plural="tokenrequests", singular="tokenrequest", model=TokenRequest)
_BINDABLE: Mapping[tuple[str, str], type[Resource]] = {
    ("v1", "Pod"): Pod,
    ("v1", "Secret"): Secret,
    ("v1", "Node"): Node,
}


class TokenRequests:
    """Answers a request for a token of one service account."""

    def __init__(self, table: Table, tokens: ServiceAccountTokens, lookup: Lookup, chain: Chain) -> None:
        self._accounts = table.of(ServiceAccount)
        self._tokens = tokens
        self._lookup = lookup
        self._chain = chain

    async def create(self, document: Mapping[str, Any], *, namespace: str, name: str, options: WriteOptions) -> Written:
        """Return the request with a token in its status; raises NotFound, Invalid, BadRequest, Conflict, Forbidden."""
        unknown: list[str] = []
        asked = codec.decode(KIND, document, unknown=unknown)
        warnings = strictness.tell(KIND, document, options, unknown=unknown)
        assert isinstance(asked, TokenRequest)
        account = await self._lookup.find(ServiceAccount, name, namespace=namespace)
        if account is None:
            raise not_found("serviceaccounts", name)
        meta = replace(asked.metadata, name=name, namespace=namespace)
        if meta.uid not in ("", account.metadata.uid):
            why = f"the UID in the token request ({meta.uid}) does not match the UID of the service account"
            raise conflict("serviceaccounts/token", name, why)
        spec = asked.spec
        if spec.expiration_seconds is None:
            spec = replace(spec, expiration_seconds=DEFAULT_S)
        if faults := spec_faults(spec):
            raise invalid("TokenRequest", name, faults, group=GROUP)
        asked = replace(asked, api_version=f"{GROUP}/v1", kind="TokenRequest", metadata=meta, spec=spec)
        await self._chain.judge(
            Attributes(
                kind=self._accounts,
                operation="CREATE",
                namespace=namespace,
                name=name,
                subresource="token",
                user=options.user,
                dry_run=options.dry_run,
                obj=asked,
            )
        )
        bound = await self._bound(spec.bound_object_ref, account)
        # Filled in last: admission has to see whether a client named an audience, or left it to us.
        asked = replace(asked, spec=replace(spec, audiences=spec.audiences or self._tokens.audiences))
        return Written(await self._answer(asked, account, bound), created=True, warnings=warnings)

    async def _answer(self, asked: TokenRequest, account: ServiceAccount, bound: Resource | None) -> StoredObject:
        spec, node = asked.spec, None
        assert spec.expiration_seconds is not None
        if isinstance(bound, Pod) and bound.spec.node_name:
            node = await self._lookup.cached(Node, bound.spec.node_name)
        issued = self._tokens.issue(
            account, audiences=spec.audiences, lifetime_s=spec.expiration_seconds, bound=bound, node=node
        )
        status = TokenRequestStatus(token=issued.token, expiration_timestamp=timestamp(issued.expires))
        meta = replace(asked.metadata, creation_timestamp=timestamp(issued.expires - spec.expiration_seconds))
        answer = replace(asked, metadata=meta, status=status)
        return StoredObject(KIND, namespace=meta.namespace, name=meta.name, data=to_store(answer), revision=0)

    async def _bound(self, reference: BoundObjectReference | None, account: ServiceAccount) -> Resource | None:
        """Return the object that the token shall die with."""
        if reference is None:
            return None
        model = _BINDABLE.get((reference.api_version or "v1", reference.kind))
        if model is None:
            what = f"{reference.api_version}, Kind={reference.kind}"
            raise BadRequest(f"cannot bind token to object of type {what}")
        namespace = "" if model is Node else account.metadata.namespace
        found = await self._lookup.find(model, reference.name, namespace=namespace)
        plural = f"{model.__name__.lower()}s"
        if found is None:
            raise not_found(plural, reference.name)
        if reference.uid not in ("", found.metadata.uid):
            why = (
                f"the UID in the bound object reference ({reference.uid}) does not match the UID in record. The object "
                "might have been deleted and then recreated"
            )
            raise conflict(plural, reference.name, why)
        if isinstance(found, Pod) and found.spec.service_account_name != account.metadata.name:
            why = "cannot bind token for serviceaccount " + f'"{account.metadata.name}" to pod running with different '
            raise BadRequest(why + "serviceaccount name.")
        return found


def spec_faults(spec: TokenRequestSpec) -> list[Fault]:
    """Return what is wrong with the wishes of a request whose defaults are filled in."""
    faults = []
    lifetime_s, at = spec.expiration_seconds or 0, "spec.expirationSeconds"
    if lifetime_s < SHORTEST_S:
        faults.append(wrong(at, lifetime_s, "may not specify a duration less than 10 minutes"))
    if lifetime_s > LONGEST_S:
        faults.append(wrong(at, lifetime_s, "may not specify a duration larger than 2^32 seconds"))
    return faults


def refuse_unconfigured() -> Forbidden:
    """Return the refusal of a master that has no key to sign tokens with."""
    return Forbidden("this master signs no tokens: name a key under [access] signing_keys in its configuration")
