#!/usr/bin/env bash
# A grid of eight cells and two base models through the SLURM executor: one job is ended by
# scancel, one by SIGKILL, both are tried again, and the same command then runs nothing.
#
#     tests/slurm.sh [FOLDER]      # as root, with slurm-wlm and munge from Debian
#
# Sets up a cluster of this one machine in FOLDER, and takes it down again. Leaves 77
# where SLURM cannot run, with the reason.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
place=${1:-$(mktemp -d)}
skip() { echo "skipped: $*"; exit 77; }

[ "$(id -u)" = 0 ] || skip "not root, and slurmctld and munged need to be"
if ! command -v slurmctld munged >/dev/null && [ -n "${CI-}" ]; then
    { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } \
        >/dev/null 2>&1 || true
fi
command -v slurmctld slurmd munged >/dev/null ||
    skip "no SLURM here: apt-get install slurm-wlm munge"
python -c "import snakemake_executor_plugin_slurm" 2>/dev/null ||
    skip "no executor here: pip install snakemake-executor-plugin-slurm"
[ -e /etc/slurm/slurm.conf ] && skip "this machine belongs to a SLURM cluster already"

# --- a cluster of one node; without cgroups, which containers lack
mkdir -p "$place/state" "$place/spool" /run/munge
chown munge: /run/munge
pgrep -x munged >/dev/null || runuser -u munge -- munged
host=$(hostname -s)
mkdir -p /etc/slurm
ln -s "$place/slurm.conf" /etc/slurm/slurm.conf  # srun within a job looks only there
cat > "$place/slurm.conf" <<CONF
ClusterName=maple
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MinJobAge=600
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$(awk '/MemTotal/ {print int($2 / 1100)}' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
take_down() {
    trap - EXIT
    for child in $(jobs -p); do kill "$child" 2>/dev/null || true; done
    scancel --quiet --user root || true
    for daemon in slurmctld slurmd; do
        kill "$(cat "$place/$daemon.pid")" 2>/dev/null || true
    done
    rm -f /etc/slurm/slurm.conf
}
trap take_down EXIT
trap 'exit 1' INT TERM
slurmctld -c
slurmd
for _ in $(seq 30); do [ "$(sinfo -ho %t)" = idle ] && break; sleep 1; done
[ "$(sinfo -ho %t)" = idle ] || { cat "$place"/slurm*.log; exit 1; }

# --- a workspace with a grid of eight cells
cd "$place"
cp -r "$root/notebooks" "$root/params" "$root/profiles" "$root/Snakefile" .
cp -r "$root/maple_utils" .
export PYTHONPATH=$place  # so that nothing changes while it runs
cat > params/tiny.yaml <<GRID
base_model: [miniature-llama]
instruction_data: [bactrian-x-mini, multialpaca-mini]
rank: [2, 4]
bits: [4, 16]
seed: [0]
train_limit: 4
test_limit: 4
heldout: 1
max_steps: 2
languages: [es, ru]
tasks: [belebele]
shots: 0
GRID
python -m maple_utils.grid write
cells=$(python -m maple_utils.grid status tiny | grep -o '^miniature[^ ]*')
grid() {
    snakemake --workflow-profile profiles/slurm --config grid=tiny together=true \
        --jobs 4 --retries 1 \
        --slurm-status-command squeue --slurm-init-seconds-before-status-checks 2 \
        --seconds-between-status-checks 2 --latency-wait 5 -- \
        $(printf 'runs/%s/evaluate.json ' $cells)
}
count() { find runs -name "$1" | wc -l; }

# --- two jobs are ended, and tried again
grid > first.log 2>&1 &
first=$!
running() { squeue -ho '%i' --states RUNNING | head -1; }
until [ -n "$(running)" ]; do kill -0 $first; sleep 0.2; done
cancelled=$(running)
scancel "$cancelled"
victim=
until [ -n "$victim" ]; do
    kill -0 $first
    sleep 0.2
    for process in $(pgrep -f 'papermill notebooks/02_train.ipynb runs/'); do
        # ours only: other grids may run on this machine
        [ "$(readlink "/proc/$process/cwd")" = "$place" ] && victim=$process
    done
done
kill -KILL "$victim"
echo "ended job $cancelled by scancel and process $victim by SIGKILL"
wait $first || { tail -50 first.log; exit 1; }
echo "$(grep -c 'Trying to restart job' first.log) tried again;" \
    "$(count train.json) trained, $(count evaluate.json) evaluated"
[ "$(grep -c 'Trying to restart job' first.log)" = 2 ]
[ "$(count train.json)" = 8 ] && [ "$(count evaluate.json)" = 10 ]

# --- the same command again
touch before
grid > second.log 2>&1 &
wait $! || { tail -50 second.log; exit 1; }
[ "$(find runs -name '0*.ipynb' -newer before | wc -l)" = 0 ]
