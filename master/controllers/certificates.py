"""Certificate signing requests: node agents' own are approved, what is approved is signed, what is old goes.

Source: kubernetes.io, "Certificates and Certificate Signing Requests"; how long requests stay are the real server's
figures.
"""

import base64
import datetime as dt
import logging
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from api.kinds.certificates import CertificateSigningRequest, CertificateSigningRequestCondition
from client.clock import seconds_of, timestamp
from client.resources import Resources
from client.runner import Runner
from master.access.authorization import Authorizer
from master.access.certificates import (
    KUBELET_CLIENT,
    SIGNERS,
    Signer,
    Wanted,
    kubelet_client_faults,
    read_request,
)
from master.access.rules import Request
from master.access.user import User
from master.controllers.context import Context
from master.controllers.removal import remove

log = logging.getLogger(__name__)

GROUP, PLURAL = "certificates.k8s.io", "certificatesigningrequests"
APPROVED_S = 3600.0  # with a certificate, or denied
DENIED_S = 3600.0
PENDING_S = 24 * 3600.0
SWEEP_S = 60.0


class Recognizer(NamedTuple):
    """Requests that are approved for whoever has the permission: a subresource of its own stands for it."""

    subresource: str
    own: bool  # only for the node that asks
    message: str


RECOGNIZERS: Sequence[Recognizer] = (
    Recognizer(
        "selfnodeclient", own=True, message="Auto approving self kubelet client certificate after SubjectAccessReview."
    ),
    Recognizer("nodeclient", own=False, message="Auto approving kubelet client certificate after SubjectAccessReview."),
)


def has(request: CertificateSigningRequest, *types: str) -> bool:
    """Return whether a request has a condition of one of these types."""
    return any(each.type in types for each in request.status.conditions)


def plan_recognizers(request: CertificateSigningRequest) -> list[Recognizer]:
    """Return by which permissions a pending request might be approved."""
    if request.spec.signer_name != KUBELET_CLIENT or has(request, "Approved", "Denied", "Failed"):
        return []
    try:
        wanted = read_request(request.spec.request)
    except ValueError:
        return []
    if kubelet_client_faults(wanted, request.spec.usages):
        return []
    return [each for each in RECOGNIZERS if not each.own or request.spec.username == wanted.common_name]


def with_condition(request: CertificateSigningRequest, now: float, **fields: str) -> CertificateSigningRequest:
    """Return a request with one condition more, true from now on."""
    moment = timestamp(now)
    condition = CertificateSigningRequestCondition(
        status="True", last_update_time=moment, last_transition_time=moment, **fields
    )
    status = replace(request.status, conditions=(*request.status.conditions, condition))
    return replace(request, status=status)


def expires_at(request: CertificateSigningRequest) -> float:
    """Return when a request is of no use to anybody, in seconds since the epoch."""
    made = seconds_of(request.metadata.creation_timestamp)
    decided = [each for each in request.status.conditions if each.type in ("Approved", "Denied", "Failed")]
    if not decided:
        return made + PENDING_S
    moment = max(seconds_of(each.last_update_time) if each.last_update_time else made for each in decided)
    if has(request, "Denied", "Failed"):
        return moment + DENIED_S
    return moment + APPROVED_S if request.status.certificate else made + PENDING_S


class CertificateController:
    """Approves, signs and clears away."""

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._authorizer: Authorizer | None = context.authorizer
        self._signer: Signer | None = context.signer
        self._requests = context.informers.of(CertificateSigningRequest)
        self.runner = Runner(
            "certificates",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=2,
            clock=context.clock,
        )
        self._requests.subscribe(self.runner.queue.add)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Do what one request needs next."""
        request = self._requests.get(key)
        if request is None:
            return None
        now = self._clock.time()
        if now >= expires_at(request):
            await remove(api, request)
            return None
        if (recognized := await self._recognize(request)) is not None:
            approved = with_condition(request, now, type="Approved", reason="AutoApproved", message=recognized.message)
            request = await api.update(approved, subresource="approval")
            log.info("certificate request approved name=%s by=%s", key, recognized.subresource)
        if has(request, "Approved") and not has(request, "Failed") and not request.status.certificate:
            await self._sign(request, api)
        return max(1.0, min(SWEEP_S, expires_at(request) - now))

    async def _recognize(self, request: CertificateSigningRequest) -> Recognizer | None:
        """Return the permission by which a request is approved, if its author has one."""
        if self._authorizer is None:
            return None
        spec = request.spec
        user = User(spec.username, spec.groups, spec.uid, spec.extra)
        for each in plan_recognizers(request):
            if await self._authorizer.allows(Request(user, "create", GROUP, PLURAL, each.subresource)):
                return each
        return None

    async def _sign(self, request: CertificateSigningRequest, api: Resources) -> None:
        faults = SIGNERS.get(request.spec.signer_name)
        if faults is None or self._signer is None:
            return  # somebody else's signer
        now = self._clock.time()
        try:
            wanted: Wanted | None = read_request(request.spec.request)
            why = faults(wanted, request.spec.usages) if wanted is not None else ""
        except ValueError as error:
            wanted, why = None, str(error)
        if wanted is None or why:
            failed = with_condition(request, now, type="Failed", reason="SignerValidationFailure", message=why)
            await api.update(failed, subresource="status")
            log.warning("certificate request not signed name=%s reason=%s", request.metadata.name, why)
            return
        certificate = self._signer.sign(
            wanted,
            request.spec.usages,
            lifetime_s=request.spec.expiration_seconds,
            now=dt.datetime.fromtimestamp(now, dt.UTC),
        )
        status = replace(request.status, certificate=base64.b64encode(certificate).decode())
        await api.update(replace(request, status=status), subresource="status")
        log.info("certificate signed name=%s signer=%s", request.metadata.name, request.spec.signer_name)
