#!/bin/bash
# Make a VM a host of the lab and start its services. The Vagrantfile uploads two archives to /tmp and runs this:
#   vm.sh provision ROLE   packages, environment, code, configuration, services
#   vm.sh start ROLE       start the services (every boot; systemd does it by itself where there is one)
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"

step=${1:?provision or start}
role=${2:?master or node}

has_systemd() { [ -d /run/systemd/system ]; }

install_configuration() {
  mkdir -p /etc/trireme
  tar -C /etc/trireme --no-same-owner -xf /tmp/trireme-host.tar
  rm -f /tmp/trireme-host.tar
  chmod 700 /etc/trireme
  # The interface that bears the host's own address; its name differs with the provider.
  if [ -e /etc/trireme/keepalived.conf ]; then
    local own interface
    own=$(sed -n 's/^ *unicast_src_ip //p' /etc/trireme/keepalived.conf)
    interface=$(ip -o -4 address | awk -v own="$own" 'index($4, own "/") == 1 { print $2 }')
    sed -i "s/@INTERFACE@/$interface/" /etc/trireme/keepalived.conf
  fi
}

# Rewritten at every start: Docker (Vagrant's provider of that name) makes /etc/hosts anew each time. Ours come first,
# because a host has another address there too.
name_hosts() {
  local others
  others=$(grep -v ' # trireme$' /etc/hosts)
  { sed 's/$/ # trireme/' /etc/trireme/hosts; echo "$others"; } >/etc/hosts
}

stop_services() {
  pkill -f "boot.sh $role" || return 0
  for _ in $(seq 150); do
    pgrep -f "boot.sh $role" >/dev/null || return 0
    sleep 0.1
  done
}

write_unit() {
  cat >/etc/systemd/system/trireme.service <<UNIT
[Unit]
Description=Trireme $role
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=$here/boot.sh $role
KillMode=mixed
TimeoutStopSec=15
Delegate=yes
LimitNOFILE=1048576
TasksMax=infinity
Restart=always

[Install]
WantedBy=multi-user.target
UNIT
  # The packages' own services would take the sockets and ports of ours.
  systemctl disable -q --now docker.socket docker containerd haproxy keepalived 2>/dev/null || true
  systemctl daemon-reload
  systemctl enable -q trireme
}

case $step in
  provision)
    packages=("$role")
    [ "$role" = master ] && packages+=(balancer)
    "$here/base.sh" packages "${packages[@]}"
    [ -x "$PYTHON" ] && cmp -s "$here/requirements.txt" "$TRIREME/venv/requirements.txt" || {
      rm -rf "$TRIREME/venv"
      "$here/base.sh" python "$TRIREME/bundle/wheels"
      cp "$here/requirements.txt" "$TRIREME/venv/requirements.txt"
    }
    "$here/base.sh" code "$TRIREME/bundle/src"
    install_configuration
    "$here/$role.sh"
    [ "$role" = master ] && "$here/balancer.sh" master
    has_systemd && write_unit
    rm -rf "$TRIREME/bundle"
    ;;
  start)
    name_hosts
    if has_systemd; then
      systemctl restart trireme
    else
      stop_services
      setsid "$here/boot.sh" "$role" </dev/null >/var/log/trireme/boot.log 2>&1 &
    fi
    ;;
  *) echo "vm.sh: there is no step called '$step'" >&2; exit 2 ;;
esac
