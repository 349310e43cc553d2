#!/bin/bash
# Run a host's services until told to stop: the entry point of container hosts, ExecStart on VMs.
#   boot.sh ROLE
role=${1:?entry, master or node}
. "$(dirname "$(readlink -f "$0")")/lib.sh"
services=$SERVICES/$role

# A container is given its cgroups read-only, and on cgroup v2 its root group may not both hold processes
# and delegate controllers: a nested engine needs neither restriction.
open_cgroups() {
  mount -o remount,bind,rw /sys 2>/dev/null || true
  for mounted in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    mount -o remount,bind,rw "$mounted" 2>/dev/null || true
  done
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/init
    while read -r pid; do
      echo "$pid" >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
    done </sys/fs/cgroup/cgroup.procs
    sed 's/ / +/g; s/^/+/' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control || true
  fi
}

in_container() { [ -e /.dockerenv ]; }

if [ "$role" = node ]; then
  if in_container; then
    open_cgroups
    # Mounts made for pods must be seen by the engine whoever makes them.
    mount --make-rshared /
  fi
  sysctl -qw net.ipv4.ip_forward=1
fi

if [ "$role" = master ]; then
  # The balancer listens on an address that may be another master's right now.
  [ -e /etc/trireme/keepalived.conf ] && sysctl -qw net.ipv4.ip_nonlocal_bind=1
  if [ -e /etc/trireme/store.toml ]; then rm -f "$services/raft_store/down"; else touch "$services/raft_store/down"; fi
fi

stop() {
  if [ "$role" = node ]; then
    # Left to itself, the engine waits 15 s for a container that ignores SIGTERM.
    sv -w 5 force-stop "$services/node_agent" >/dev/null || true
    pods=$(timeout 2 docker ps -q || true)
    # shellcheck disable=SC2086 - one word an identifier
    [ -z "$pods" ] || timeout 6 docker stop -t 2 $pods >/dev/null || true
  fi
  sv -w 8 force-stop "$services"/*/ >/dev/null
  kill -HUP "$supervisor"
  exit 0
}
trap stop TERM INT
runsvdir -P "$services" &
supervisor=$!
wait "$supervisor"
