#!/usr/bin/env bash
# Everything that only a CUDA device can tell, in one call of under 8 minutes: the suites marked `gpu`,
# compute-sanitizer on small inputs, the benchmark. Run it in the repository's root.
#
# Wheels in .whl/ are installed first, for machines that reach no package index. Results and the log go to $OUT,
# or to a new folder below the temporary one. A step that fails or runs out of its time does not stop the
# others; the exit code is 0 only if all of them passed, 2 if there is no device.
#
# --small takes one suite and a few images, to try the script itself; PYTHONPATH=tests/support/host_site
# lets it run without a device, on the host executor. Golden data is found where the tests find it, or in .shared/.
set -uo pipefail
case "$*" in
  '')
    sizes=()
    suites=(tests/kernels tests/engines)
    ;;
  --small)
    sizes=(--pairs 4 --distinct 2 --kernel-pairs 2 --batches 4 --repeat 1)
    suites=(tests/engines/test_device_arrays.py)
    ;;
  *) echo "usage: bench/device_checks.sh [--small]" >&2 && exit 2 ;;
esac
cd "$(dirname "$0")/.."
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
failed=()
said=$(mktemp)
: >"$out/checks.log"

# step NAME SECONDS COMMAND...: run with a limit, add what it says to $out/checks.log, and go on.
step() {
  local name=$1 seconds=$2 begun=$SECONDS code
  shift 2
  printf '\n== %s (at most %s s)\n' "$name" "$seconds" | tee -a "$out/checks.log"
  timeout --kill-after=5 "$seconds" "$@" >"$said" 2>&1
  code=$?
  cat "$said" >>"$out/checks.log"
  tail -n 25 "$said"
  printf -- '-- %s: exit code %s after %s s\n' "$name" "$code" "$((SECONDS - begun))" | tee -a "$out/checks.log"
  [ "$code" -eq 0 ] || failed+=("$name")
  return "$code"
}

if compgen -G '.whl/*.whl' >/dev/null; then
  site=$(mktemp -d)
  step install 30 "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" .whl/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
# The tree as an installed package would be, with the kernels among the subpackages.
work=$(mktemp -d)
tree=$work/tree
trap 'rm -rf "$said" "$work" ${site:+"$site"}' EXIT
mkdir "$tree"
for golden in ../shared .shared; do
  if [ -d "$golden" ]; then ln -sfn "$PWD/$golden" "$work/shared"; fi
done
cp -r gpu_eval bench tests pyproject.toml "$tree/"
cp -r kernels "$tree/gpu_eval/kernels"
export PYTHONPATH="$tree${PYTHONPATH:+:$PYTHONPATH}"
cd "$tree" || exit 1

if ! step device 20 "$python" -c '
import sys
from gpu_eval.engines.cuda import cupy_device
serves, why, devices = cupy_device.available()
print(why)
sys.exit(0 if serves else 2)
'; then
  printf '\nno device: nothing was checked\n'
  exit 2
fi

step smoke 60 "$python" -m bench.gpu_smoke
# Warnings of an unknown machine's CuPy or driver are told, and fail nothing.
step tests 110 "$python" -m pytest -m gpu -W default -p no:cacheprovider -q \
  "${suites[@]}"
if ! grep -Eq '[0-9]+ passed' "$said"; then
  printf 'no test ran on the device\n'
  failed+=(tests)
fi
if command -v compute-sanitizer >/dev/null; then
  step memcheck 50 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -m bench.gpu_smoke
  step racecheck 50 compute-sanitizer --tool racecheck --error-exitcode 9 "$python" -m bench.gpu_smoke
else
  printf '\n== compute-sanitizer is not installed: memcheck and racecheck did not run\n'
  failed+=(memcheck racecheck)
fi
step bench_kernels 70 "$python" -m bench.gpu --parts kernels inflate "${sizes[@]}" --out "$out/gpu_kernels.json"
step bench_split 80 "$python" -m bench.gpu --parts split rivals "${sizes[@]}" --out "$out/gpu_split.json"

printf '\n== results in %s\n' "$out"
if [ "${#failed[@]}" -gt 0 ]; then
  printf 'failed: %s\n' "${failed[*]}"
  exit 1
fi
printf 'all steps passed\n'
