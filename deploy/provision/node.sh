#!/bin/bash
# The services of a node: a Docker engine of its own and the node agent.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

write_service node dockerd <<'RUN'
# A pid file that outlived a crash may name a living stranger, and dockerd would refuse to start.
rm -f /run/docker.pid /run/docker/containerd/containerd.pid
# Pods get their network from the node agent; Docker's own bridge and rules would only stand in the way
# (its FORWARD policy drops routed packets).
exec dockerd --host unix:///run/docker.sock --bridge none --iptables=false --ip6tables=false \
  --shutdown-timeout 3 --log-level warn --log-opt max-size=10m --log-opt max-file=3
RUN

write_service node node_agent <<RUN
export MALLOC_ARENA_MAX=2
until docker version >/dev/null 2>&1; do sleep 0.1; done
for image in $TRIREME/images/*.tar; do
  # Loaded once: the engine keeps it, and the mark lies beside the engine's own data.
  mark=/var/lib/docker/trireme-\$(sha256sum "\$image" | cut -c 1-16)
  [ -e "\$mark" ] || { docker load -q -i "\$image" && touch "\$mark"; } || exit 1
done
exec $PYTHON -P -m node_agent --config /etc/trireme/node.toml
RUN
