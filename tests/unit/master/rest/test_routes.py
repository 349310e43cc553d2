"""Paths and methods against what they name."""

import pytest

from api.errors import MethodNotAllowed
from api.kinds.table import TABLE
from master.rest.routes import Target, Unserved, parse_path, pick_verb, request_verb

PODS = "/api/v1/namespaces/a/pods"


@pytest.mark.parametrize(
    ("path", "plural", "namespace", "name", "subresource"),
    [
        ("/api/v1/pods", "pods", "", "", ""),
        ("/api/v1/pods/", "pods", "", "", ""),
        ("/api/v1/namespaces/a/pods", "pods", "a", "", ""),
        ("/api/v1/namespaces/a/pods/b", "pods", "a", "b", ""),
        ("/api/v1/namespaces/a/pods/b/log", "pods", "a", "b", "log"),
        ("/api/v1/namespaces", "namespaces", "", "", ""),
        ("/api/v1/namespaces/a", "namespaces", "", "a", ""),
        ("/api/v1/namespaces/a/status", "namespaces", "", "a", "status"),
        ("/api/v1/namespaces/a/finalize", "namespaces", "", "a", "finalize"),
        ("/api/v1/nodes/n1", "nodes", "", "n1", ""),
        ("/apis/apps/v1/deployments", "deployments", "", "", ""),
        ("/apis/apps/v1/namespaces/a/deployments/d/scale", "deployments", "a", "d", "scale"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/r", "clusterroles", "", "r", ""),
    ],
)
def test_paths_name_resources(path, plural, namespace, name, subresource):
    found = parse_path(TABLE, path)
    assert isinstance(found, Target)
    assert (found.kind.plural, found.namespace, found.name, found.subresource) == (plural, namespace, name, subresource)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/foos",
        "/api/v2/pods",
        "/apis/apps/v1/pods",
        "/apis/nope/v1/things",
        "/api/v1/pods/b",  # namespaced, so it has no name without its namespace
        "/api/v1/namespaces/a/nodes",
        "/api/v1/namespaces/a/nodes/n1",
        "/api/v1/namespaces/a/pods/b/nope",
        "/api/v1/namespaces/a/pods/b/log/more",
    ],
)
def test_what_no_table_has_is_known_to_be_a_resource(path):
    assert isinstance(parse_path(TABLE, path), Unserved)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/watch//pods",
        "/apis",
        "/apis/apps",
        "/apis/apps/v1",
        "/version",
        "/api/v1//pods",
        "",
    ],
)
def test_other_paths_are_no_resources(path):
    assert parse_path(TABLE, path) is None


@pytest.mark.parametrize(
    ("method", "path", "watch", "verb"),
    [
        ("GET", "/api/v1/pods", False, "list"),
        ("GET", "/api/v1/pods", True, "watch"),
        ("GET", "/api/v1/namespaces/a/pods/b", False, "get"),
        ("POST", "/api/v1/namespaces/a/pods", False, "create"),
        ("PUT", "/api/v1/namespaces/a/pods/b", False, "update"),
        ("PATCH", "/api/v1/namespaces/a/pods/b/status", False, "patch"),
        ("DELETE", "/api/v1/namespaces/a/pods/b", False, "delete"),
        ("DELETE", "/api/v1/namespaces/a/pods", False, "deletecollection"),
        ("POST", "/api/v1/namespaces/a/pods/b/binding", False, "create"),
        ("GET", "/api/v1/namespaces/a/pods/b/exec", False, "connect"),
        ("POST", "/api/v1/namespaces/a/pods/b/portforward", False, "connect"),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", False, "create"),
    ],
)
def test_methods_are_verbs(method, path, watch, verb):
    assert pick_verb(parse_path(TABLE, path), method, watch=watch) == verb


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/pods"),
        ("PUT", "/api/v1/namespaces/a/pods"),
        ("POST", "/api/v1/namespaces/a/pods/b"),
        ("DELETE", "/api/v1/namespaces/a/pods/b/status"),
        ("PUT", "/api/v1/namespaces/a/pods/b/log"),
        ("GET", "/api/v1/namespaces/a/pods/b/binding"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("BREW", "/api/v1/nodes/n1"),
    ],
)
def test_methods_that_do_not_apply_are_refused(method, path):
    with pytest.raises(MethodNotAllowed):
        pick_verb(parse_path(TABLE, path), method, watch=False)


@pytest.mark.parametrize(
    ("method", "path", "watch", "verb"),
    [
        ("GET", PODS, False, "list"),
        ("GET", PODS, True, "watch"),
        ("GET", f"{PODS}/x", False, "get"),
        ("GET", f"{PODS}/x", True, "get"),
        ("POST", f"{PODS}/x/exec", False, "create"),
        ("GET", f"{PODS}/x/exec", False, "get"),
        ("DELETE", PODS, False, "deletecollection"),
        ("GET", "/api/v1/watch/pods", False, "watch"),
        ("GET", "/api/v1/watch/namespaces/a/pods/x", False, "watch"),
        ("DELETE", "/api/v1/watch/namespaces/a/pods/x", False, "watch"),
        ("GET", "/api/v1/watch/nopes", False, "watch"),
    ],
)
def test_authorization_sees_the_verbs_of_the_real_server(method, path, watch, verb):
    assert request_verb(method, parse_path(TABLE, path), watch=watch) == verb


@pytest.mark.parametrize(
    ("path", "plural", "namespace", "name"),
    [
        ("/api/v1/watch/pods", "pods", "", ""),
        ("/api/v1/watch/pods/", "pods", "", ""),
        ("/api/v1/watch/namespaces/a/pods", "pods", "a", ""),
        ("/api/v1/watch/namespaces/a/pods/b", "pods", "a", "b"),
        ("/api/v1/watch/namespaces", "namespaces", "", ""),
        ("/api/v1/watch/namespaces/a", "namespaces", "", "a"),
        ("/apis/apps/v1/watch/deployments", "deployments", "", ""),
        ("/apis/apps/v1/watch/namespaces/a/deployments/d", "deployments", "a", "d"),
    ],
)
def test_paths_that_say_that_they_are_watched(path, plural, namespace, name):
    found = parse_path(TABLE, path)
    assert isinstance(found, Target)
    assert (found.kind.plural, found.namespace, found.name, found.watches) == (plural, namespace, name, True)
    assert pick_verb(found, "GET", watch=False) == "watch"
    for method in ("HEAD", "POST", "DELETE"):
        with pytest.raises(MethodNotAllowed):
            pick_verb(found, method, watch=True)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/watch/namespaces/a/pods/b/status",
        "/api/v1/watch/namespaces/a/pods/b/proxy/x",
        "/api/v1/watch/componentstatuses",
        "/api/v1/watch/pods/b",
        "/api/v1/watch/watch/pods",
        "/apis/metrics.k8s.io/v1beta1/watch/nodes",
    ],
)
def test_paths_that_cannot_be_watched(path):
    assert isinstance(parse_path(TABLE, path), Unserved)
