#!/bin/bash
# The balancer in front of the masters: one address for the whole control plane.
#   balancer.sh entry    on a host of its own
#   balancer.sh master   beside each master, where keepalived holds the address on one of them
role=${1:?entry or master}
. "$(dirname "$(readlink -f "$0")")/lib.sh"

write_service "$role" haproxy <<'RUN'
exec haproxy -db -f /etc/trireme/haproxy.cfg
RUN

if [ "$role" = master ]; then
  write_service master keepalived <<'RUN'
exec keepalived --dont-fork --log-console --use-file /etc/trireme/keepalived.conf
RUN
fi
