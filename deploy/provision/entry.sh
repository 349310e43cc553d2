#!/bin/bash
# The service of the entry host: one address for the whole control plane.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

write_service entry haproxy <<'RUN'
exec haproxy -db -f /etc/trireme/haproxy.cfg
RUN
