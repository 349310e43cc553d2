"""What a master loads before it serves: nothing that only some clients, or only the leader, will ever need."""

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.contract.access.cluster import Authority, private_pem
from tests.contract.kv.stores import ROOT, free_ports

# Each of these costs a start 5 to 50 ms of processor time.
NOT_NEEDED = (
    "aiohttp", "api.cel", "api.custom.definition_rules", "api.custom.rules", "api.descriptions", "cryptography.x509",
    "email", "grpc", "importlib.metadata", "importlib.resources", "master.controllers", "master.rest.openapi",
    "master.rest.streams", "master.scheduler", "yaml",
)  # fmt: skip
PROGRAM = """
import asyncio, sys
from pathlib import Path
from master import config, program

async def main():
    serving = asyncio.create_task(program.run(config.load(Path(sys.argv[1]))))
    port = int(sys.argv[2])
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            break
    if serving.done():
        serving.result()
    print(*sorted(sys.modules))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)

asyncio.run(main())
"""


def test_a_master_that_listens_has_loaded_only_what_it_needs(tmp_path: Path) -> None:
    server = Authority(tmp_path).issue("server", "system:master:test", "system:masters")
    signing = tmp_path / "sa.key"
    signing.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    rest, rpc, nobody = free_ports(3)
    config = tmp_path / "master.toml"
    config.write_text(f"""
name = "master1"
address = "127.0.0.1"
rest_listen = "127.0.0.1:{rest}"
grpc_listen = "127.0.0.1:{rpc}"
store_endpoints = ["127.0.0.1:{nobody}"]
[tls]
client_ca = "{tmp_path}/ca.crt"
cert = "{server}.crt"
key = "{server}.key"
[access]
signing_keys = ["{signing}"]
authority_cert = "{tmp_path}/ca.crt"
authority_key = "{tmp_path}/ca.key"
audit_log = "{tmp_path}/audit.log"
""")
    command = [sys.executable, "-c", PROGRAM, str(config), str(rest)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "master.grpc_server" in loaded
    assert not loaded & set(NOT_NEEDED)
