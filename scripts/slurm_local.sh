#!/usr/bin/env bash
# A real SLURM on this one machine, for tests and for trying things out. As root; nothing outside its folder is written.
#   scripts/slurm_local.sh up     start munge, slurmctld and slurmd, wait until the node is idle, print what to export
#   scripts/slurm_local.sh down   stop them and remove the folder; jobs that run are killed
# SLURM_LOCAL is the folder (default /tmp/slurm-local), SLURM_LOCAL_CPUS the processors that jobs see (default: all),
# SLURM_LOCAL_GPUS a number of fake GPUs, device files that nothing is behind (default 2).
# Needs Debian's slurm-wlm and munge: apt-get install -y --no-install-recommends slurm-wlm munge
set -euo pipefail

folder=${SLURM_LOCAL:-/tmp/slurm-local}
cpus=${SLURM_LOCAL_CPUS:-$(nproc)}
gpus=${SLURM_LOCAL_GPUS:-2}
conf=$folder/slurm.conf
export SLURM_CONF=$conf

fail() {
  echo "slurm_local: $*" >&2
  exit 1
}

needs() {
  ((EUID == 0)) || fail "its daemons run as root: become root"
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || fail "$program is missing: apt-get install slurm-wlm munge"
  done
}

settings() {
  local host memory
  host=$(hostname -s)
  memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
  cat <<EOF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort=${SLURM_LOCAL_PORT:-16817}
SlurmdPort=$((${SLURM_LOCAL_PORT:-16817} + 1))
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MaxArraySize=1001
MinJobAge=300
KillWait=2
JobRequeue=1
ReturnToService=2
EOF
  ((gpus == 0)) || echo "GresTypes=gpu"
  echo "NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory$( ((gpus == 0)) || echo " Gres=gpu:$gpus") State=UNKNOWN"
  # a GPU partition and one without, as clusters have
  echo "PartitionName=gpu Nodes=$host MaxTime=INFINITE State=UP"
  echo "PartitionName=cpu Nodes=$host Default=YES MaxTime=INFINITE State=UP"
}

fake_gpus() {
  : >"$folder/gres.conf"
  for ((i = 0; i < gpus; i++)); do
    [[ -e $folder/gpu$i ]] || mknod "$folder/gpu$i" c 195 "$i"
    echo "Name=gpu File=$folder/gpu$i" >>"$folder/gres.conf"
  done
}

up() {
  needs
  if timeout 5 sinfo -h >/dev/null 2>&1; then fail "it is up already; stop it with: $0 down"; fi
  mkdir -p "$folder"/{munge,state,spool}
  chmod 755 "$folder" "$folder/munge"
  head -c 128 /dev/urandom >"$folder/munge/key"
  chmod 600 "$folder/munge/key"
  settings >"$conf"
  fake_gpus
  munged --force --key-file "$folder/munge/key" --socket "$folder/munge/socket" --pid-file "$folder/munge/pid" \
    --log-file "$folder/munge/log" --seed-file "$folder/munge/seed" 2>>"$folder/munge/stderr"
  slurmctld -c
  slurmd
  for ((i = 0; i < 100; i++)); do
    [[ $(timeout 5 sinfo -h -o %t 2>/dev/null | sort -u) == idle ]] && break
    sleep 0.1
  done
  [[ $(timeout 5 sinfo -h -o %t 2>/dev/null | sort -u) == idle ]] || fail "the node did not come up: see $folder/*.log"
  echo "export SLURM_CONF=$conf"
}

stop() { # a daemon by its pid file
  local pid
  [[ -f $1 ]] || return 0
  pid=$(<"$1")
  kill "$pid" 2>/dev/null || return 0
  for ((i = 0; i < 50; i++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

down() {
  [[ -f $conf ]] || fail "nothing is there to stop: $folder"
  timeout 5 scancel --user="$(id -un)" >/dev/null 2>&1 || true
  for ((i = 0; i < 100; i++)); do # jobs get KillWait seconds
    [[ -z $(timeout 5 squeue --noheader 2>/dev/null) ]] && break
    sleep 0.1
  done
  stop "$folder/slurmd.pid"
  stop "$folder/slurmctld.pid"
  stop "$folder/munge/pid"
  for process in /proc/[0-9]*; do # what watches over a job that did not end
    [[ $(readlink "$process/cwd" 2>/dev/null) != "$folder" ]] || kill -9 "${process#/proc/}" 2>/dev/null || true
  done
  rm -rf "$folder"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *) sed -n '2,7s/^# \?//p' "$0" >&2 && exit 2 ;;
esac
