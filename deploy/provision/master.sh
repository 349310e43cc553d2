#!/bin/bash
# The services of a master: one store member and one master. With an external store there is no store.toml,
# and boot.sh leaves the member down.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

python_service master raft_store store.toml
python_service master master master.toml
