#!/bin/bash
# Make a Debian machine a Trireme host, whatever its role. Used by the host image and by the VMs alike.
#   base.sh packages ROLE...   what the distribution supplies
#   base.sh python [WHEELS]    virtual environment with the pinned dependencies (from a folder of wheels, or the index)
#   base.sh code SOURCE        our packages and the small image that every lab ships
here=$(dirname "$(readlink -f "$0")")
. "$here/lib.sh"

install_packages() {
  local packages=(python3 python3-venv runit iptables iproute2 iputils-ping curl procps ca-certificates busybox-static)
  for role in "$@"; do
    case $role in
      entry) packages+=(haproxy) ;;
      balancer) packages+=(haproxy keepalived) ;;
      master) ;;
      node) packages+=(docker.io conntrack ipset) ;;
      *) echo "base.sh: there is no role called '$role'" >&2; exit 2 ;;
    esac
  done
  export DEBIAN_FRONTEND=noninteractive
  # The packages' own services stay off: runit supervises ours.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${packages[@]}"
  rm -f /usr/sbin/policy-rc.d
  apt-get clean
  rm -rf /var/lib/apt/lists/*
}

install_python() {
  local index=()
  [ -n "${1:-}" ] && index=(--no-index --find-links "$1")
  mkdir -p "$TRIREME/src"
  python3 -m venv "$TRIREME/venv"
  "$PYTHON" -m pip install -q --no-cache-dir --no-compile --disable-pip-version-check "${index[@]}" -r "$here/requirements.txt"
  # raftos pins releases that no longer build; raft_store's adapter for it supplies what it needs.
  "$PYTHON" -m pip install -q --no-cache-dir --no-compile --no-deps --no-build-isolation \
    --disable-pip-version-check "${index[@]}" -r "$here/requirements-no-deps.txt"
  echo "$TRIREME/src" >"$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/trireme.pth"
  "$PYTHON" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$TRIREME/venv" || true
}

install_code() {
  rm -rf "$TRIREME/src"
  mkdir -p "$TRIREME/src" "$TRIREME/images" /var/lib/trireme
  cp -R "$1/." "$TRIREME/src"
  "$PYTHON" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$TRIREME/src"
  "$PYTHON" "$here/tools_image.py" /bin/busybox "$TRIREME/images/tools.tar"
}

step=${1:?packages, python or code}
shift
case $step in
  packages) install_packages "$@" ;;
  python) install_python "$@" ;;
  code) install_code "$@" ;;
  *) echo "base.sh: there is no step called '$step'" >&2; exit 2 ;;
esac
