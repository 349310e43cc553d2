"""What a running store says about itself, over the etcd API that every client uses."""

import contextlib
import http.client
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import msgspec

from raft_store.disk.directory import DiskError
from raft_store.tool import snapshots
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

TIMEOUT_S = 5.0
SAVE_TIMEOUT_S = 3600.0
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]


class Access(msgspec.Struct, frozen=True):
    """How to reach a store; without files, in plain text."""

    endpoints: tuple[str, ...]  # "host:port"
    ca: str = ""
    cert: str = ""
    key: str = ""

    def open(self, endpoint: str) -> grpc.Channel:
        """Return a channel to one of its members; raises OSError if a file cannot be read."""
        address = endpoint.split("://", 1)[-1]
        if not self.ca:
            return grpc.insecure_channel(address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=Path(self.ca).read_bytes(),
            private_key=Path(self.key).read_bytes() if self.key else None,
            certificate_chain=Path(self.cert).read_bytes() if self.cert else None,
        )
        return grpc.secure_channel(address, credentials, options=_OPTIONS)

    def get(self, endpoint: str, path: str, *, timeout_s: float) -> bytes | None:
        """Return what a member answers to a GET request; None if it has no such page. Raises OSError."""
        address = endpoint.split("://", 1)[-1]
        if self.ca:
            tls = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                tls.load_cert_chain(self.cert, self.key)
            asking: http.client.HTTPConnection = http.client.HTTPSConnection(address, timeout=timeout_s, context=tls)
        else:
            asking = http.client.HTTPConnection(address, timeout=timeout_s)
        with contextlib.closing(asking):
            try:
                asking.request("GET", path)
                answer = asking.getresponse()
                return answer.read() if answer.status == HTTPStatus.OK else None
            except http.client.HTTPException as exc:
                raise OSError(f"{endpoint}{path}: {exc!r}") from exc


class StoreUnreachable(Exception):
    """Nobody answers; the message says whom we asked, and what became of it."""


class MemberFacts(msgspec.Struct, frozen=True):
    """One member as the group knows it."""

    id: str
    name: str
    peer_urls: list[str]
    client_urls: list[str]
    learner: bool


class MemberState(msgspec.Struct, frozen=True):
    """One member as it sees itself."""

    endpoint: str
    id: str
    role: str  # "leader", "follower", "learner"
    term: int
    index: int
    applied: int
    revision: int
    size_bytes: int
    hash: str  # of the keys at ``hash_revision``; members that agree show the same
    hash_revision: int
    problem: str  # empty: it answers


def from_environment(environment: Mapping[str, str] | None = None) -> Access:
    """Return what etcdctl's environment variables say."""
    known = os.environ if environment is None else environment
    endpoints = known.get("ETCDCTL_ENDPOINTS", "127.0.0.1:2379")
    return Access(
        tuple(endpoint for endpoint in endpoints.split(",") if endpoint),
        ca=known.get("ETCDCTL_CACERT", ""),
        cert=known.get("ETCDCTL_CERT", ""),
        key=known.get("ETCDCTL_KEY", ""),
    )


def members(access: Access) -> list[MemberFacts]:
    """Return the group's members, as the first endpoint that answers has them; raises StoreUnreachable."""
    problems = []
    for endpoint in access.endpoints:
        with access.open(endpoint) as channel:
            try:
                answer = rpc_pb2_grpc.ClusterStub(channel).MemberList(pb.MemberListRequest(), timeout=TIMEOUT_S)
            except grpc.RpcError as exc:
                problems.append(f"{endpoint}: {_words(exc)}")
                continue
        return [
            MemberFacts(f"{one.ID:x}", one.name, list(one.peerURLs), list(one.clientURLs), one.isLearner)
            for one in answer.members
        ]
    raise StoreUnreachable("no member answers: " + "; ".join(problems))


def states(access: Access, endpoints: Sequence[str]) -> list[MemberState]:
    """Return how each of ``endpoints`` is; one that does not answer says why. Hashes are of one revision."""
    answers: dict[str, pb.StatusResponse | str] = {}
    for endpoint in endpoints:
        with access.open(endpoint) as channel:
            try:
                stub = rpc_pb2_grpc.MaintenanceStub(channel)
                answers[endpoint] = stub.Status(pb.StatusRequest(), timeout=TIMEOUT_S)
            except grpc.RpcError as exc:
                answers[endpoint] = _words(exc)
    known = [answer.header.revision for answer in answers.values() if not isinstance(answer, str)]
    common = min(known, default=0)
    return [_state(access, endpoint, answer, common) for endpoint, answer in answers.items()]


def _state(access: Access, endpoint: str, answer: pb.StatusResponse | str, revision: int) -> MemberState:
    if isinstance(answer, str):
        return MemberState(endpoint, "", "", 0, 0, 0, 0, 0, "", 0, answer)
    leads = answer.leader == answer.header.member_id
    return MemberState(
        endpoint=endpoint,
        id=f"{answer.header.member_id:x}",
        role="leader" if leads else "learner" if answer.isLearner else "follower",
        term=answer.raftTerm,
        index=answer.raftIndex,
        applied=answer.raftAppliedIndex,
        revision=answer.header.revision,
        size_bytes=answer.dbSize,
        hash=_hash(access, endpoint, revision),
        hash_revision=revision,
        problem="; ".join(answer.errors),
    )


def _hash(access: Access, endpoint: str, revision: int) -> str:
    with access.open(endpoint) as channel:
        try:
            stub = rpc_pb2_grpc.MaintenanceStub(channel)
            answer = stub.HashKV(pb.HashKVRequest(revision=revision), timeout=10 * TIMEOUT_S)
        except grpc.RpcError:
            return ""  # compacted meanwhile, or gone: the state says so the next time
    return f"{answer.hash:08x}"


def save(access: Access, path: Path) -> snapshots.SnapshotFacts:
    """Save a snapshot of the first endpoint that answers into ``path``; what is there is complete and checked.

    Raises StoreUnreachable, DiskError.
    """
    growing = path.with_name(path.name + ".part")
    problems = []
    for endpoint in access.endpoints:
        try:
            with growing.open("wb") as file:
                for blob in _blobs(access, endpoint):
                    file.write(blob)
                file.flush()
                os.fsync(file.fileno())
        except grpc.RpcError as exc:
            problems.append(f"{endpoint}: {_words(exc)}")
            continue
        except OSError as exc:
            raise DiskError(f"cannot write {growing}: {exc.strerror}") from exc
        facts = snapshots.status(growing)
        growing.rename(path)
        return facts
    growing.unlink(missing_ok=True)
    raise StoreUnreachable("no snapshot could be had: " + "; ".join(problems))


def _blobs(access: Access, endpoint: str) -> Iterator[bytes]:
    with access.open(endpoint) as channel:
        stub = rpc_pb2_grpc.MaintenanceStub(channel)
        for part in stub.Snapshot(pb.SnapshotRequest(), timeout=SAVE_TIMEOUT_S):
            yield part.blob


def _words(exc: grpc.RpcError) -> str:
    call: Any = exc  # every call's own error is a call as well, which its type does not say
    return f"{call.code().name}: {call.details()}"
