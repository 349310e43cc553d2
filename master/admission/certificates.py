"""Certificate signing requests: who asked is what we saw, not what they say; approving and signing need a permission
for the very signer.

Source: kubernetes.io, "Certificates and Certificate Signing Requests", and "Using Admission Controllers".
"""

from collections.abc import Collection

from msgspec.structs import replace

from api.errors import Fault, invalid
from api.kinds.certificates import CertificateSigningRequest
from api.meta import Resource
from master.access.authorization import Authorizer
from master.access.rules import Request
from master.access.user import MASTER_PREFIX, SYSTEM_MASTERS
from master.admission.chain import Attributes, Rule, refusal
from master.subresources import DECISIONS

PLACE = ("certificates.k8s.io", "certificatesigningrequests")


class CertificateRequests(Rule):
    """Writes into a new request who made it, and refuses requests for the group that may do everything.

    masters: the names of their hosts.
    """

    def __init__(self, masters: Collection[str] = ()) -> None:
        self._masters = frozenset(masters)

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new request with its author."""
        if attributes.kind.place != PLACE or not attributes.creates:
            return obj
        assert isinstance(obj, CertificateSigningRequest), obj
        user = attributes.user
        spec = replace(obj.spec, username=user.name, uid=user.uid, groups=user.groups, extra={**user.extra})
        return replace(obj, spec=spec)

    async def judge(self, attributes: Attributes) -> None:
        """Raise Invalid for a request that no signer could read, Forbidden for what system:masters or a master may."""
        if attributes.kind.place != PLACE or not attributes.creates:
            return
        from master.access.certificates import (  # noqa: PLC0415 - X.509 is large, and requests are few
            KUBE_APISERVER_CLIENT,
            read_request,
            request_faults,
        )

        obj = attributes.obj
        assert isinstance(obj, CertificateSigningRequest), obj
        spec = obj.spec
        wrong = request_faults(spec.request, spec.usages, spec.signer_name, spec.expiration_seconds)
        if wrong:
            faults = [Fault(field, why) for field, why in wrong.items()]
            raise invalid(obj.kind, attributes.name, faults, group=PLACE[0])
        if spec.signer_name != KUBE_APISERVER_CLIENT:
            return
        wanted = read_request(spec.request)
        if SYSTEM_MASTERS in wanted.organizations:
            why = f"use of {KUBE_APISERVER_CLIENT} signer with {SYSTEM_MASTERS} group is not allowed"
            raise refusal(attributes, why)
        if wanted.common_name.startswith(MASTER_PREFIX) or wanted.common_name in self._masters:
            # Node agents take its bearer for a master, and the store's members for one of them: as much as all of it.
            raise refusal(attributes, f"use of {KUBE_APISERVER_CLIENT} signer for a master's name is not allowed")


async def may_for_signer(authorizer: Authorizer, attributes: Attributes, verb: str, signer: str) -> bool:
    """Return whether the user may approve or sign for a signer: by its name, or by its whole domain."""
    group, plural = "certificates.k8s.io", "signers"
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        if await authorizer.allows(Request(attributes.user, verb, group, plural, name=name)):
            return True
    return False


class CertificateApproval(Rule):
    """Asks for the permission to approve for the signer."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden."""
        if attributes.kind.place != PLACE or attributes.subresource != "approval":
            return
        old = attributes.old
        assert isinstance(old, CertificateSigningRequest), old
        if not await may_for_signer(self._authorizer, attributes, "approve", old.spec.signer_name):
            why = f'user not permitted to approve requests with signerName "{old.spec.signer_name}"'
            raise refusal(attributes, why)
        new = attributes.obj
        assert isinstance(new, CertificateSigningRequest), new
        if faults := decision_faults(old, new):
            raise invalid(new.kind, attributes.name, faults, group=PLACE[0])


def decision_faults(old: CertificateSigningRequest, new: CertificateSigningRequest) -> list[Fault]:
    """Return what is wrong with a decision: it is one of two, true, and never taken back."""
    before, after = ({each.type: each for each in request.status.conditions} for request in (old, new))
    at = "status.conditions"
    faults = [
        Fault(f"{at}", f"Forbidden: updates may not remove a condition of type {name}", "FieldValueForbidden")
        for name in DECISIONS
        if name in before and name not in after
    ]
    if all(name in after for name in DECISIONS):
        faults.append(Fault(at, "Invalid value: Approved and Denied conditions are mutually exclusive"))
    faults += [
        Fault(f"{at}.status", f'Invalid value: "{after[name].status}": may not be "False" or "Unknown" for {name}')
        for name in DECISIONS
        if name in after and after[name].status != "True"
    ]
    return faults


class CertificateSigning(Rule):
    """Asks for the permission to sign for the signer, of whoever writes a certificate or says that there is none."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden."""
        if attributes.kind.place != PLACE or attributes.subresource != "status":
            return
        old, new = attributes.old, attributes.obj
        assert isinstance(old, CertificateSigningRequest), old
        assert isinstance(new, CertificateSigningRequest), new
        if old.status == new.status:
            return
        if not await may_for_signer(self._authorizer, attributes, "sign", old.spec.signer_name):
            raise refusal(attributes, f'user not permitted to sign requests with signerName "{old.spec.signer_name}"')
