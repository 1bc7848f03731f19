#!/bin/sh
# sh tests/bench/ways.sh DATA OUT [EXPRESSION GENDER VAL SEEDS]
# Compares the ways of ways.toml on rows of DATA/fer2013 and DATA/utkface. What OUT holds
# already is not run again.
set -e
data=$1 out=$2 expression=${3:-6000} gender=${4:-4000} val=${5:-1500} seeds=${6:-3}
here=$(dirname "$0")
slice="$out/$expression-$gender"
mkdir -p "$slice"
python "$here/slice_of.py" "$data/fer2013/manifest.csv" expression "$expression" "$val" \
  --as feeling -o "$slice/feeling.csv"
python "$here/slice_of.py" "$data/utkface/manifest.csv" gender "$gender" "$val" \
  --as sex -o "$slice/sex.csv"
faceattr compare "$here/ways.toml" --on "$slice/feeling.csv" "$slice/sex.csv" \
  --seeds "$seeds" -o "$slice/results.csv" --cache "$out/cache"
