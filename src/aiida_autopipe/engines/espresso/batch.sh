#!/bin/sh
# Run pw.x on every structure of a batch, several at a time. Plain sh: it runs where pw.x is.
#
# usage: sh batch.sh SLOTS STRUCTURE_SECONDS JOB_SECONDS -- COMMAND...
#
# Beside it lie `order` (names, longest calculation first) and `inputs.tar.gz` (NAME/pw.in). COMMAND
# is started in runs/NAME, one process per slot at a time; a limit of 0 seconds is none. What a
# structure leaves is packed into results/NAME.tgz, which appears complete or not at all; a structure
# that has one is not run again when the script is. One that was interrupted leaves
# results/NAME.part.tgz and is run again. Nothing a structure does ends the others.
set -u

slots=$1 structure_seconds=$2 job_seconds=$3
shift 4

# A failed structure's scratch is worth keeping only while it is small.
scratch_kb=20480
# Without it the last lines before an abort, which say why, are lost.
export GFORTRAN_UNBUFFERED_PRECONNECTED=y
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Each mpirun would bind its first rank to the same core.
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
export I_MPI_PIN=off MV2_ENABLE_AFFINITY=0

now() { date +%s.%N; }

say() { printf '%s\n' "$*" >>batch.log; }

# pack NAME TARGET: what is kept of a structure, in one step.
pack() {
    packed=results/$2
    set -- "$1"
    for file in pw.in pw.out pw.err CRASH data-file-schema.xml outcome; do
        [ -e "runs/$1/$file" ] && set -- "$@" "$file"
    done
    name=$1
    shift
    if tar -czf "$packed.tmp" -C "runs/$name" "$@"; then
        mv "$packed.tmp" "$packed"
    fi
}

# run_one NAME COMMAND...: one structure from scratch.
run_one() {
    folder=runs/$1
    label=$1
    shift
    rm -rf "$folder/out" "$folder/outcome" "$folder/CRASH" "$folder/data-file-schema.xml"
    mkdir -p "$folder/out"
    begin=$(now)
    (cd "$folder" && exec "$@" </dev/null >pw.out 2>pw.err) &
    child=$!
    status=0
    wait "$child" || status=$?
    if [ -n "$stopped" ] && [ "$status" -gt 128 ]; then
        wait "$child" 2>/dev/null || status=$?
    fi
    child=
    ended=exit
    # 143: the signal for the whole job reached pw.x before it reached this script.
    if [ "$status" -ne 0 ] && { [ -n "$stopped" ] || [ "$status" -eq 143 ]; }; then
        ended=stopped
    elif [ "$status" -eq 124 ] && [ "$structure_seconds" -gt 0 ]; then
        ended=timeout
    fi
    printf 'ended %s\nstatus %s\nbegin %s\nend %s\n' "$ended" "$status" "$begin" "$(now)" \
        >"$folder/outcome"
    mv "$folder/out/aiida.save/data-file-schema.xml" "$folder/" 2>/dev/null
    if [ "$ended" = stopped ]; then
        pack "$label" "$label.part.tgz"
    else
        pack "$label" "$label.tgz"
        rm -f "results/$label.part.tgz"
    fi
    if [ "$status" -eq 0 ] || [ "$(du -sk "$folder/out" | cut -f1)" -gt "$scratch_kb" ]; then
        rm -rf "$folder/out"
    fi
    say "$label $ended $status"
}

# worker COMMAND...: take the next structure that nobody has taken, until there is none.
worker() {
    stopped=
    child=
    trap 'stopped=yes; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM
    while read -r next; do
        [ -z "$stopped" ] || break
        [ -e "results/$next.tgz" ] && continue
        [ -e "claims/$next" ] && continue
        mkdir "claims/$next" 2>/dev/null || continue
        run_one "$next" "$@"
    done <order
}

stop_all() {
    say "stopped by a signal or by the time limit of the job"
    for pid in $workers $watchdog; do
        kill -TERM "$pid" 2>/dev/null
    done
}

rm -rf claims
mkdir -p runs results claims
tar -xzf inputs.tar.gz -C runs || exit 1
say "started $slots"
if [ "$structure_seconds" -gt 0 ]; then
    set -- timeout -k 10 "$structure_seconds" "$@"
fi

workers=
watchdog=
trap stop_all TERM INT HUP
if [ "$job_seconds" -gt 0 ]; then
    main=$$
    (
        sleep "$job_seconds" &
        sleeper=$!
        trap 'kill "$sleeper" 2>/dev/null; exit 0' TERM
        wait "$sleeper" && kill -TERM "$main"
    ) &
    watchdog=$!
fi
slot=0
while [ "$slot" -lt "$slots" ]; do
    worker "$@" &
    workers="$workers $!"
    slot=$((slot + 1))
done
for pid in $workers; do
    # A signal ends `wait` early.
    while kill -0 "$pid" 2>/dev/null; do
        wait "$pid"
    done
done
[ -z "$watchdog" ] || kill -TERM "$watchdog" 2>/dev/null
rm -rf claims
say finished
