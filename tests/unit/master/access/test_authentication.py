"""Who sent a request, and as whom they act; and what they may ask about themselves."""

import datetime as dt
import ssl

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.errors import Unauthorized
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.gate import Gate
from master.access.policies import RegistryPolicies
from master.access.user import ANONYMOUS, AUTHENTICATED, User
from master.rest.server import RestServer
from tests.unit.master.rest.fake_registry import FakeRegistry

REVIEWS = "/apis/authorization.k8s.io/v1"


class Verifier:
    async def verify(self, token):
        return User("bearer") if token == "good" else None


def subject(*pairs):
    return {"subject": tuple(((pair,)) for pair in pairs)}


async def test_a_certificate_names_user_and_groups():
    certificate = subject(("organizationName", "devs"), ("organizationName", "ops"), ("commonName", "alice"))
    user = await Authenticator().authenticate(certificate=certificate, authorization="")
    assert user == User("alice", ("devs", "ops", AUTHENTICATED))


async def test_tokens():
    authenticator = Authenticator([Verifier()])
    user = await authenticator.authenticate(certificate=None, authorization="Bearer good")
    assert user == User("bearer", (AUTHENTICATED,))
    assert await authenticator.authenticate(certificate=None, authorization="") == ANONYMOUS
    for header in ("Bearer bad", "Basic good", "good", "Bearer ", "Bearer"):
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(certificate=None, authorization=header)


async def test_a_certificate_without_a_name_is_nobody():
    assert (
        await Authenticator().authenticate(certificate=subject(("organizationName", "x")), authorization="")
        == ANONYMOUS
    )


def authority():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    return key, certificate(name, name, key.public_key(), key, ca=True)


def certificate(subject_, issuer, public_key, signer, *, ca=False):
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject_).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def write(folder, name, key, cert):
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + cert.public_bytes(serialization.Encoding.PEM))
    return path


def issue(folder, name, ca_key, ca_cert, **names):
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(getattr(NameOID, oid), value) for oid, value in names.items()]
    return write(folder, name, key, certificate(x509.Name(attributes), ca_cert.subject, key.public_key(), ca_key))


def client_context(ca, pem=None):
    context = ssl.create_default_context(cafile=str(ca))
    if pem is not None:
        context.load_cert_chain(pem)
    return context


async def test_client_certificates_over_tls(tmp_path):
    ca_key, ca_cert = authority()
    ca = write(tmp_path, "ca", ca_key, ca_cert)
    server_pem = issue(tmp_path, "server", ca_key, ca_cert, COMMON_NAME="localhost")
    admin = issue(tmp_path, "admin", ca_key, ca_cert, ORGANIZATION_NAME="system:masters", COMMON_NAME="admin")
    other_key, other_cert = authority()
    stranger = issue(tmp_path, "stranger", other_key, other_cert, ORGANIZATION_NAME="system:masters", COMMON_NAME="x")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(server_pem)
    context.load_verify_locations(ca)
    registry_ = FakeRegistry()
    server = RestServer(registry_, Gate(Authenticator(), Authorizer(RegistryPolicies(registry_))))
    url = f"https://localhost:{await server.start('127.0.0.1', 0, context)}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/api/v1/nodes", ssl=client_context(ca, admin)) as answer:
                assert answer.status == 200
            async with session.get(f"{url}/api/v1/nodes", ssl=client_context(ca)) as answer:
                assert answer.status == 403
                assert "system:anonymous" in (await answer.json())["message"]
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{url}/api/v1/nodes", ssl=client_context(ca, stranger))
    finally:
        await server.stop()


async def test_an_unknown_token_is_unauthorized_and_no_token_forbidden(api):
    assert (await api.json("GET", "/api/v1/pods", user="nobody", code=401))["reason"] == "Unauthorized"
    assert (await api.json("GET", "/api/v1/pods", user=None, code=403))["reason"] == "Forbidden"


async def test_authorization_comes_before_existence(api):
    await api.json("GET", "/api/v1/namespaces/a/pods/nope", user="alice", code=403)
    await api.json("GET", "/api/v1/foos", user="alice", code=403)
    await api.json("POST", "/api/v1/namespaces/a/pods", user="alice", json={}, code=403)


async def test_impersonation(api):
    status = await api.json("GET", "/api/v1/pods", headers={"Impersonate-User": "bob"}, code=403)
    assert 'User "bob"' in status["message"]
    headers = [("Impersonate-User", "bob"), ("Impersonate-Group", "system:masters")]
    await api.json("GET", "/api/v1/pods", headers=dict(headers))
    # Discovery is open to bob, but alice may not be bob.
    await api.json("GET", "/apis", headers={"Impersonate-User": "bob"})
    await api.json("GET", "/apis", headers={"Impersonate-User": "bob"}, user="alice", code=403)
    await api.json("GET", "/api/v1/pods", headers={"Impersonate-Group": "x"}, code=400)


async def ask(api, plural, spec, *, user="admin", code=201, root=REVIEWS):
    return await api.json("POST", f"{root}/{plural}", json={"spec": spec}, user=user, code=code)


async def test_may_i(api):
    wanted = {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "a"}}
    assert (await ask(api, "selfsubjectaccessreviews", wanted))["status"]["allowed"] is True
    assert (await ask(api, "selfsubjectaccessreviews", wanted, user="alice"))["status"]["allowed"] is False
    path = {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}}
    assert (await ask(api, "selfsubjectaccessreviews", path, user="alice"))["status"]["allowed"] is True
    await ask(api, "selfsubjectaccessreviews", {}, code=422)
    await ask(api, "selfsubjectaccessreviews", {**wanted, **path}, code=422)


async def test_may_they(api):
    wanted = {"user": "alice", "resourceAttributes": {"verb": "list", "resource": "pods"}}
    assert (await ask(api, "subjectaccessreviews", wanted))["status"]["allowed"] is False
    wanted["groups"] = ["system:masters"]
    assert (await ask(api, "subjectaccessreviews", wanted))["status"]["allowed"] is True
    await ask(api, "subjectaccessreviews", {"resourceAttributes": {}}, code=422)
    await ask(api, "subjectaccessreviews", wanted, user="alice", code=403)


async def test_a_local_question_stays_in_its_namespace(api):
    wanted = {"user": "alice", "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "a"}}
    root = f"{REVIEWS}/namespaces/a"
    assert (await ask(api, "localsubjectaccessreviews", wanted, root=root))["status"]["allowed"] is False
    await ask(api, "localsubjectaccessreviews", wanted, root=f"{REVIEWS}/namespaces/b", code=422)


async def test_what_may_i(api):
    status = (await ask(api, "selfsubjectrulesreviews", {"namespace": "a"}, user="alice"))["status"]
    assert "/healthz" in {url for each in status["nonResourceRules"] for url in each["nonResourceURLs"]}
    assert status["incomplete"] is False
    assert not any("pods" in each["resources"] for each in status["resourceRules"])


async def test_who_am_i(api):
    answer = await api.json(
        "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}, user="alice", code=201
    )
    assert answer["status"]["userInfo"] == {"username": "alice", "groups": ["devs", AUTHENTICATED]}


async def test_whose_is_this_token(api):
    root = "/apis/authentication.k8s.io/v1"
    known = await ask(api, "tokenreviews", {"token": "alice"}, root=root)
    assert known["status"]["user"]["username"] == "alice"
    unknown = await ask(api, "tokenreviews", {"token": "zz"}, root=root)
    assert unknown["status"]["authenticated"] is False
