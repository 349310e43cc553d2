"""The base of every API struct: how Python names map to JSON, and what is left out when empty.

The rules are Go's ``omitempty`` as the real API server shows them: an optional scalar that is unset, an optional
list or map that is empty, is left out; a required field is written even when it is zero (``restartCount: 0``) and a
required struct even when it is empty (``status: {}``).
"""

import msgspec

# Words that Kubernetes spells in capitals inside a name: podIP, podCIDRs, containerID, hostPID, clusterIPs.
_CAPITALS = {
    word: word.upper().removesuffix("S") + "s" if word in ("ips", "cidrs", "uids", "urls", "wwns") else word.upper()
    for word in ("ip", "ips", "cidr", "cidrs", "uid", "id", "pid", "ipc", "url", "urls", "uri", "uuid", "wwns")
} | {"fqdn": "FQDN", "csi": "CSI", "os": "OS", "api": "API", "cpu": "CPU", "dns": "DNS", "io": "IO", "ca": "CA"}


def json_name(attribute: str) -> str:
    """Return the JSON name of ``attribute``: ``pod_ips`` -> ``podIPs``, ``not_`` -> ``not``.

    The few names that the rule does not meet are spelled out at their field.
    """
    first, *rest = attribute.rstrip("_").split("_")
    return first + "".join(_CAPITALS.get(word, word.capitalize()) for word in rest)


class ApiStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, rename=json_name):
    """A frozen piece of an object; change one with ``msgspec.structs.replace``.

    gc=False: objects are trees, so reference counting alone frees them, and 10,000 cached pods cost the cyclic
    collector nothing.
    """
