#!/usr/bin/env bash
# Proves and measures macula on this machine's NVIDIA GPU. Everything it writes goes to results/ beside it.
#
#   run.sh [--full]      all tests, sanitizer, every layer, peers: within 20 minutes (the default)
#   run.sh --quick       the same on one layer per op: within 4 minutes
#   run.sh --only STAGE  one stage of --full: facts tests fixtures golden sanitizer time problems peers report
#   run.sh --rehearse    every stage on the look-alike driver, at tiny sizes; needs no GPU
set -uo pipefail
cd "$(dirname "$0")"

mode=full only=
while (($#)); do
  case $1 in
    --full | --quick | --rehearse) mode=${1#--} ;;
    --only) only=${2:?--only needs a stage}; shift ;;
    *) sed -n '2,8s/^# \{0,1\}//p' run.sh; [[ $1 == --help ]]; exit ;;
  esac
  shift
done

# Seconds for: facts tests fixtures golden sanitizer time problems peers report.
declare -A budget
case $mode in
  full) budget=([facts]=30 [tests]=300 [fixtures]=60 [golden]=60 [sanitizer]=180 [time]=240 [problems]=30 [peers]=270 [report]=20) ;;
  quick) budget=([facts]=15 [tests]=60 [fixtures]=20 [golden]=15 [sanitizer]=30 [time]=40 [problems]=10 [peers]=40 [report]=10) ;;
  rehearse) budget=([facts]=60 [tests]=300 [fixtures]=300 [golden]=120 [sanitizer]=300 [time]=300 [problems]=120 [peers]=300 [report]=60) ;;
esac
sizes=${mode/rehearse/tiny}
filter=conformance
sanitized=(radius_attn window_attn window_attn_general block_attn content_attn axial_pos_attn gsa value_mixture)
export MACULA_TEST_GPU=1
if [[ $mode == rehearse ]]; then
  export LD_LIBRARY_PATH=$PWD/lookalike${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} PATH=$PWD/rehearsal:$PATH
  export PTX_EMULATOR_DEVICES=sm_90 MACULA_TEST_GPU=rehearsal
  filter=conformance::driver
  sanitized=(radius_attn)
fi

rm -rf results
mkdir -p results/logs results/stages
failed=()
stage_number=0

# Runs one stage within its budget, whatever became of the others, and writes what became of it.
stage() {
  local name=$1
  shift
  [[ -z $only || $only == "$name" ]] || return 0
  local log=results/logs/$name.log begin=$SECONDS result rc
  echo "==== $name (at $SECONDS s): $*"
  timeout --kill-after=10 "${budget[$name]}" "$@" >"$log" 2>&1
  rc=$?
  case $rc in
    0) result=passed ;;
    77) result="missing: $(tail -n 1 "$log")" ;;
    124 | 137) result="out of time after ${budget[$name]} s" ;;
    *) result="failed with exit code $rc" ;;
  esac
  [[ $rc == 0 || $rc == 77 ]] || failed+=("$name")
  tail -n 5 "$log" | sed 's/^/    /'
  echo "     $name: $result"
  stage_number=$((stage_number + 1))
  python3 -c '
import json, sys
stage, result, seconds, command = sys.argv[1:]
print(json.dumps({"stage": stage, "result": result, "seconds": int(seconds), "command": command}, indent=1))' \
    "$name" "$result" $((SECONDS - begin)) "$*" >"results/stages/$stage_number-$name.json"
}

# Stages of more than one command. They run in a process of their own, so that `timeout` can end them.
in_shell() {
  printf '%s\n' "set -euo pipefail" "$@"
}

stage facts bash -c "$(in_shell \
  'cat commit; nvidia-smi 2>/dev/null || echo "no nvidia-smi"; uname -r' \
  "bin/gpu facts results/facts.json --sizes $sizes")"
stage tests bin/tests "$filter"
stage fixtures bin/check_fixtures fixtures --device cuda
stage golden bash -c "$(in_shell 'bin/golden record results/vectors.bin' 'bin/golden replay results/vectors.bin')"
stage sanitizer bash -c "$(in_shell \
  'command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not on this machine"; exit 77; }' \
  'for tool in memcheck racecheck initcheck; do' \
  "  for op in ${sanitized[*]}; do" \
  '    echo "$tool $op"' \
  '    compute-sanitizer --tool "$tool" --error-exitcode 9 bin/check_fixtures fixtures --device cuda --op "$op"' \
  '  done' \
  'done')"
stage time bin/gpu time results/time.json --sizes "$sizes" --seconds $((budget[time] * 9 / 10))
stage problems bin/gpu problems results/problems
stage peers python3 peers.py results/peers.json --times results/time.json --problems results/problems \
  --seconds $((budget[peers] * 8 / 10))
stage report bin/gpu report results

echo
if ((${#failed[@]})); then
  echo "failed: ${failed[*]} (see results/logs)"
  exit 1
fi
echo "all stages done in $SECONDS s: results/report.md"
if [[ $mode == full && -z $only ]]; then
  echo "to keep them: copy results/ to benches/record/<gpu>/<date>/ (without problems/), then paste what"
  echo "'gpu readme benches/record' prints between README's <!-- speed --> marks"
fi
