# Shared by the provisioning scripts; sourced, never run.
set -euo pipefail

TRIREME=/opt/trireme
SERVICES=$TRIREME/services
PYTHON=$TRIREME/venv/bin/python

# write_service ROLE PROGRAM < run-script: a runit service of that role, its output kept by svlogd.
write_service() {
  local folder=$SERVICES/$1/$2
  mkdir -p "$folder/log" "/var/log/trireme/$2"
  { printf '#!/bin/sh\nexec 2>&1\n'; cat; } >"$folder/run"
  printf '#!/bin/sh\nexec svlogd -tt /var/log/trireme/%s\n' "$2" >"$folder/log/run"
  # runsv hands over exit status (-1 when killed) and wait status.
  printf '#!/bin/sh\necho "%s ended: exit status $1, signal $2"\n' "$2" >"$folder/finish"
  chmod 755 "$folder/run" "$folder/log/run" "$folder/finish"
}

# python_service ROLE PROGRAM CONFIG: one of our programs.
python_service() {
  write_service "$1" "$2" <<RUN
# Two arenas: glibc's default of eight a core keeps memory that Python gave back.
export MALLOC_ARENA_MAX=2
exec $PYTHON -P -m $2 --config /etc/trireme/$3
RUN
}
