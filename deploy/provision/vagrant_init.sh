#!/bin/bash
# What Vagrant's container "VM" runs: the SSH server through which it is provisioned and its services are started.
# `vagrant halt` ends it with SIGTERM, and then the services end in order before everything else is killed.
stop() {
  pkill -TERM -f 'provision/boot.sh' || exit 0
  for _ in $(seq 120); do
    pgrep -f 'provision/boot.sh' >/dev/null || exit 0
    sleep 0.1
  done
  exit 1
}
trap stop TERM INT
# /run is empty at every start, as on a machine.
mkdir -p /run/sshd
/usr/sbin/sshd -D &
wait $!
