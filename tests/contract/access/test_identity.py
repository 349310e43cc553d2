"""Who asks: tokens of service accounts, bootstrap tokens, impersonation; by kubectl and the official client."""

import base64
import datetime as dt
import json

import pytest

from tests.contract.access.cluster import Cluster, Refused

AUTHENTICATION = "authentication.k8s.io/v1"


def claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def review(cluster: Cluster, token: str, *audiences: str) -> dict:
    document = {
        "apiVersion": AUTHENTICATION,
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": list(audiences)},
    }
    return json.loads(cluster.kubectl("create", "-o", "json", "-f", "-", text=json.dumps(document)))["status"]


def test_create_token_and_use_it(cluster, namespace):
    token = cluster.kubectl("create", "token", "default", "-n", namespace, "--duration", "20m").strip()
    said = claims(token)
    assert said["sub"] == f"system:serviceaccount:{namespace}:default"
    assert said["exp"] - said["iat"] == 1200
    who = cluster.kubectl("auth", "whoami", token=token)
    assert f"system:serviceaccount:{namespace}:default" in who
    assert f"system:serviceaccounts:{namespace}" in who
    assert f"JTI={said['jti']}" in who
    with pytest.raises(Refused, match=f'User "system:serviceaccount:{namespace}:default" cannot list resource "pods"'):
        cluster.kubectl("get", "pods", "-n", namespace, token=token)
    cluster.kubectl(
        "create", "rolebinding", "v", "--clusterrole=view", f"--serviceaccount={namespace}:default", "-n", namespace
    )
    cluster.until("the binding holds", lambda: cluster.kubectl("get", "pods", "-n", namespace, token=token) or True)


def test_a_forged_token_is_nobody(cluster, namespace):
    token = cluster.kubectl("create", "token", "default", "-n", namespace).strip()
    head, body, signature = token.split(".")
    said = claims(token) | {"sub": "system:serviceaccount:kube-system:default"}
    forged = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    for bad in (f"{head}.{forged}.{signature}", f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}AAAA", "a.b.c"):
        with pytest.raises(Refused, match=r"You must be logged in|Unauthorized"):
            cluster.kubectl("get", "--raw", "/api", token=bad)


@pytest.mark.parametrize("duration", ["1m", "599s"])
def test_a_token_lives_ten_minutes_at_least(cluster, duration):
    with pytest.raises(Refused, match="may not specify a duration less than 10 minutes"):
        cluster.kubectl("create", "token", "default", "--duration", duration)


def test_audiences(cluster, namespace):
    token = cluster.kubectl("create", "token", "default", "-n", namespace, "--audience", "vault").strip()
    with pytest.raises(Refused, match=r"You must be logged in|Unauthorized"):
        cluster.kubectl("get", "--raw", "/api", token=token)
    assert review(cluster, token)["authenticated"] is False
    status = review(cluster, token, "vault", "other")
    assert status["authenticated"] is True
    assert status["audiences"] == ["vault"]
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_a_token_dies_with_what_it_is_bound_to(cluster, namespace):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    cluster.apply(secret)
    bound = ("--bound-object-kind", "Secret", "--bound-object-name", "s", "-n", namespace)
    token = cluster.kubectl("create", "token", "default", *bound).strip()
    assert review(cluster, token)["authenticated"] is True
    uid = cluster.get("secret", "s", "-n", namespace)["metadata"]["uid"]
    with pytest.raises(Refused, match="does not match the UID in record"):
        cluster.kubectl(
            "create",
            "token",
            "default",
            *bound,
            "--bound-object-uid",
            uid[:-1] + "0" * (uid[-1] != "0") + "1" * (uid[-1] == "0"),
        )
    cluster.kubectl("delete", "secret", "s", "-n", namespace)
    cluster.until("the token is dead", lambda: not review(cluster, token).get("authenticated"))
    cluster.apply(secret)  # of the same name, and another one
    assert not review(cluster, token).get("authenticated")


def test_a_token_dies_with_its_account(cluster, namespace):
    cluster.kubectl("create", "serviceaccount", "robot", "-n", namespace)
    token = cluster.kubectl("create", "token", "robot", "-n", namespace).strip()
    assert review(cluster, token)["authenticated"] is True
    cluster.kubectl("delete", "serviceaccount", "robot", "-n", namespace)
    cluster.until("the token is dead", lambda: not review(cluster, token).get("authenticated"))
    cluster.kubectl("create", "serviceaccount", "robot", "-n", namespace)
    assert not review(cluster, token).get("authenticated")


def test_discovery_documents_verify_a_token(cluster, namespace):
    configuration = json.loads(cluster.kubectl("get", "--raw", "/.well-known/openid-configuration"))
    keys = json.loads(cluster.kubectl("get", "--raw", "/openid/v1/jwks"))["keys"]
    token = cluster.kubectl("create", "token", "default", "-n", namespace).strip()
    assert configuration["issuer"] == claims(token)["iss"]
    head = token.split(".")[0]
    kid = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]
    assert [key["kid"] for key in keys] == [kid]
    # Every service account may read them, and nobody without a name.
    assert cluster.kubectl("get", "--raw", "/openid/v1/jwks", token=token)


def bootstrap_secret(identity: str, secret: str, **fields: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{identity}", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": identity,
            "token-secret": secret,
            "usage-bootstrap-authentication": "true",
            **fields,
        },
    }


def test_bootstrap_tokens(cluster):
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    extra = {"auth-extra-groups": "system:bootstrappers:lab", "expiration": later}
    cluster.apply(bootstrap_secret("abcdef", "0123456789abcdef", **extra))
    who = cluster.kubectl("auth", "whoami", token="abcdef.0123456789abcdef")
    assert "system:bootstrap:abcdef" in who
    assert "[system:bootstrappers system:bootstrappers:lab system:authenticated]" in who
    with pytest.raises(Refused):
        cluster.kubectl("auth", "whoami", token="abcdef.0123456789abcdee")
    cluster.apply(
        bootstrap_secret("aaaaaa", "0123456789abcdef", **{"usage-bootstrap-authentication": "false"}),
        bootstrap_secret("bbbbbb", "0123456789abcdef", **{"auth-extra-groups": "system:masters"}),
    )
    for identity in ("aaaaaa", "bbbbbb"):
        with pytest.raises(Refused):
            cluster.kubectl("auth", "whoami", token=f"{identity}.0123456789abcdef")


def test_impersonation(cluster, namespace):
    account = f"system:serviceaccount:{namespace}:default"
    who = cluster.kubectl("auth", "whoami", "--as", account)
    assert f"[system:serviceaccounts system:serviceaccounts:{namespace} system:authenticated]" in who
    who = cluster.kubectl("auth", "whoami", "--as", "bob", "--as-group", "devs", "--as-uid", "7", "-o", "json")
    info = json.loads(who)["status"]["userInfo"]
    assert (info["username"], info["uid"], info["groups"]) == ("bob", "7", ["devs", "system:authenticated"])
    token = cluster.kubectl("create", "token", "default", "-n", namespace).strip()
    with pytest.raises(Refused, match='cannot impersonate resource "users" in API group "" at the cluster scope'):
        cluster.kubectl("get", "pods", "--as", "bob", token=token)
    cluster.kubectl(
        "create", "clusterrole", f"act-{namespace}", "--verb=impersonate", "--resource=users", "--resource-name=bob"
    )
    cluster.kubectl(
        "create",
        "clusterrolebinding",
        f"act-{namespace}",
        f"--clusterrole=act-{namespace}",
        f"--serviceaccount={namespace}:default",
    )
    cluster.until("bob may be acted as", lambda: "bob" in cluster.kubectl("auth", "whoami", "--as", "bob", token=token))
    with pytest.raises(Refused, match='cannot impersonate resource "groups"'):
        cluster.kubectl("get", "pods", "--as", "bob", "--as-group", "system:masters", token=token)
