"""An operator as its author would write it, for ``kopf run``: nothing in it knows what it runs against."""

import kopf
import kubernetes


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    settings.posting.level = 20
    settings.watching.server_timeout = 5  # watches end and are resumed while the test runs


@kopf.on.create("example.com", "v1", "gardens")
def create(spec, name, namespace, body, patch, **_):
    data = {"flowers": ",".join(spec["flowers"])}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-beds"}, "data": data}
    kopf.adopt(child, owner=body)
    kubernetes.config.load_config()
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, child)
    patch.status["phase"] = "Planted"
    kopf.event(body, type="Normal", reason="Planted", message=f"{len(spec['flowers'])} flowers")
    return {"planted": len(spec["flowers"])}


@kopf.on.field("example.com", "v1", "gardens", field="spec.flowers")
def replant(old, new, patch, **_):
    if old is not None:
        patch.status["replanted"] = f"{len(old)} -> {len(new)}"


@kopf.timer("example.com", "v1", "gardens", interval=0.5, initial_delay=0.1)
def water(status, patch, **_):
    patch.status["watered"] = status.get("watered", 0) + 1


@kopf.daemon("example.com", "v1", "gardens", cancellation_timeout=2)
async def watch_over(stopped, body, **_):
    kopf.info(body, reason="Guarded", message="Somebody watches over it")
    await stopped.wait()


@kopf.on.delete("example.com", "v1", "gardens")
def dig_up(name, namespace, **_):
    kubernetes.config.load_config()
    core = kubernetes.client.CoreV1Api()
    core.patch_namespaced_config_map("cemetery", namespace, {"data": {name: "dug up"}})
