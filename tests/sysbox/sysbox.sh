#!/bin/bash
# A machine in the machine: a real systemd as process 1 of namespaces of its own, on a throw-away overlay of this /.
#   sysbox.sh up STAGE     boot it; the files below STAGE are copied over it
#   sysbox.sh exec CMD...  run something inside
#   sysbox.sh down [-f]    halt it; -f: as a power cut
# $SYSBOX is its directory, $NAME its name, $NSPAWN_ARGS what systemd-nspawn is told besides. Needs root.
set -euo pipefail
export SYSBOX=${SYSBOX:-/run/sysbox} NAME=${NAME:-sysbox}
case ${1:-} in
up)
  mkdir -p "$SYSBOX"; export STAGE=$(realpath "${2:-/var/empty}")
  CG=/sys/fs/cgroup; [ -d $CG/unified ] && CG=$CG/unified     # hybrid v1+v2 host (as here) or pure v2
  export CGSUB=$NAME-$$; mkdir "$CG/$CGSUB"; echo "$CG/$CGSUB" > "$SYSBOX/cgroup"
  setsid unshare --mount --propagation private bash -euc '
    mount -t cgroup2 none /sys/fs/cgroup                      # private mount ns: nspawn now sees a pure cgroup-v2 host
    echo $$ > /sys/fs/cgroup/$CGSUB/cgroup.procs
    W=$SYSBOX/w; mkdir -p $W; mount -t tmpfs -o mode=755 none $W; mkdir $W/low $W/up $W/work $W/root
    mount --bind / $W/low                                      # not recursive: only the root file system
    mount -t overlay overlay -o lowerdir=$W/low,upperdir=$W/up,workdir=$W/work $W/root
    : > $W/root/etc/machine-id; rm -f $W/root/etc/systemd/system/*.wants/*; mkdir -p $W/root/var/log/journal
    [ -d "$STAGE" ] && cp -a "$STAGE/." $W/root/
    exec systemd-nspawn --quiet --register=no --keep-unit --directory=$W/root --machine=$NAME --private-network \
      --kill-signal=SIGRTMIN+3 --console=pipe ${NSPAWN_ARGS:-} --boot systemd.unit=${TARGET:-basic.target} </dev/null' \
    > "$SYSBOX/console.log" 2>&1 &
  NS=$!; echo $NS > "$SYSBOX/nspawn"
  for _ in $(seq 200); do
    L=$(cat /proc/$NS/task/$NS/children 2>/dev/null | tr -d ' ') || true
    if [ -n "$L" ] && nsenter -t "$L" -a -- systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; then
      echo "$L" > "$SYSBOX/leader"; echo "$L"; exit 0; fi
    kill -0 $NS 2>/dev/null || { cat "$SYSBOX/console.log" >&2; exit 1; }
    sleep 0.05
  done; echo "boot timeout" >&2; cat "$SYSBOX/console.log" >&2; kill $NS; exit 1;;
exec)   # as after a login there: what is installed inside is found, and nothing of outside
  shift
  exec nsenter -t "$(cat "$SYSBOX/leader")" -a -- \
    env -i LANG=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@";;
down)   # graceful; "down -f" = power cut (SIGKILL to the namespace's PID 1 takes every process with it)
  NS=$(cat "$SYSBOX/nspawn"); L=$(cat "$SYSBOX/leader")
  if [ "${2:-}" = -f ]; then kill -KILL $L; else kill -TERM $NS; fi
  for _ in $(seq 300); do grep -q '^State:.[^Z]' /proc/$NS/status 2>/dev/null || break; sleep 0.02; done   # gone or zombie
  C=$(cat "$SYSBOX/cgroup"); find "$C" -depth -type d -exec rmdir {} \; 2>/dev/null || true; rm -rf "$SYSBOX";;
*) sed -n 2,7p "$0"; exit 2;;
esac
