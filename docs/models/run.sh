#!/bin/sh
# Checks the models with spin (6.5.2) and a C compiler. Usage: sh docs/models/run.sh [SECONDS]
# Each line: what is checked, the flags, and what must come out: "none" (no error within SECONDS
# and memory) or "found" (a trace that loses data, as the rule left out would).
# Environment: SPIN (the spin to run), MEMORY_MB (per run, default 3000).
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
spin=${SPIN:-spin}
seconds=${1:-60}
memory=${MEMORY_MB:-3000}
failed=0

# check EXPECTED MODE NAME MODEL FLAGS...; MODE: exhaust (as far as time goes) or search (random).
check() {
  expected=$1 mode=$2 name=$3 model=$4
  shift 4
  dir="$work/run"
  rm -rf "$dir" && mkdir "$dir" && cd "$dir" && cp "$here/$model" . || exit 1
  case $mode in
    exhaust) compile="-DCOLLAPSE" options="-m6000" ;;
    search) compile="-DBITSTATE -DT_RAND -DP_RAND" options="-m400 -RS3" ;;
    short) compile="-DBFS" options="" ;;
  esac
  "$spin" -a "$@" "$model" >spin.txt 2>&1 || { echo "cannot read $model"; cat spin.txt; exit 1; }
  # shellcheck disable=SC2086
  cc -O2 -w -DSAFETY -DMEMLIM="$memory" -DVECTORSZ=2048 $compile -o pan pan.c || exit 1
  # -E: end states are ignored on purpose, a blocked atomic is a pruned choice.
  # shellcheck disable=SC2086
  timeout -s INT "$seconds" ./pan -E $options >out.txt 2>&1
  result=none
  ls ./*.trail >/dev/null 2>&1 && result=found
  states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out.txt | head -1)
  verdict=ok
  [ "$result" = "$expected" ] || { verdict=WRONG failed=1; }
  echo "$verdict: $name: error $result (expected $expected), $states states"
  if [ "$verdict" = WRONG ] && [ "$result" = found ]; then "$spin" -t "$@" "$model" | grep -E '^ *[A-Z]' | head -40; fi
}

all="-DINC -DSEALED -DNORENEW -DOPEN -DJCOMMIT -DCREAD"
ours="-DLATE -DASSUME -DRETURN"
small="-DDATA=3 -DMAXEP=2 -DMAXV=1"

check none  exhaust "all rules, no crash"            view.pml $all -DVWAIT -DDATA=3 -DMAXEP=3 -DMAXV=2 -DCRASHES=0
check none  exhaust "all rules, one power cut"       view.pml $all -DVWAIT $small -DCRASHES=1
check none  exhaust "as built, no crash"             view.pml $all $ours -DDATA=3 -DMAXEP=3 -DMAXV=1 -DCRASHES=0
check none  exhaust "as built, one power cut"        view.pml $all $ours $small -DCRASHES=1
check none  search  "as built, three data hosts"     view.pml $all $ours -DDATA=7 -DVIEW0=3 -DMAXEP=3 -DMAXV=2 -DCRASHES=1
check found short   "without INC"                    view.pml -DSEALED -DVWAIT -DNORENEW -DOPEN -DJCOMMIT -DCREAD $small -DCRASHES=1
check found search  "without SEALED"                 view.pml -DINC -DVWAIT -DNORENEW -DOPEN -DJCOMMIT -DCREAD -DDATA=3 -DMAXEP=3 -DMAXV=2 -DCRASHES=1
check found search  "without OPEN"                   view.pml -DINC -DSEALED -DVWAIT -DNORENEW -DJCOMMIT -DCREAD -DDATA=3 -DMAXEP=3 -DMAXV=2 -DCRASHES=1
check found search  "without JCOMMIT"                view2.pml -DNOGRANT -DINC -DSEALED -DVWAIT -DNORENEW -DOPEN -DCREAD -DDATA=7 -DVIEW0=3 -DMAXEP=3 -DMAXV=2 -DCRASHES=1
check found search  "RETURN but reading on"          view.pml $all $ours -DRETURNREAD -DDATA=3 -DMAXEP=3 -DMAXV=2 -DCRASHES=1
check none  exhaust "lease hand-over"                handover.pml -DTHIRDCOMMITS -DCOMMONPOINT
check found short   "hand-over on mere ack"          handover.pml -DTHIRDCOMMITS -DCOMMONPOINT -DYIELDONACK
exit $failed
