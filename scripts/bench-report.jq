# SPDX-License-Identifier: Apache-2.0
#
# Samples to results: input is the array of samples; $rows, $rtt and $environment are given.
#
# A row's result for a contender: the median of its samples, the samples, its ratio to nbdfuse (or the row's
# "base"), and what went wrong.  If any sample could not be measured (null), there is no median: a contender that returns
# wrong data once has no speed.

def median:
  sort | length as $n
  | if $n == 0 then null
    elif $n % 2 == 1 then .[($n - 1) / 2]
    else (.[$n / 2 - 1] + .[$n / 2]) / 2 end;

def ratio($a; $b): if $a == null or $b == null or $b == 0 then null else $a / $b end;

def holds($value; $target):
  if $value == null then null
  elif $target.op == "<=" then $value <= $target.value
  else $value >= $target.value end;

. as $samples
| ["tmpfs", "nbdfuse", "qsd", "remram", "nbd", "local", "managed"] as $order
| {
    environment: $environment,
    contenders: [$order[] | select(. as $c | any($samples[]; .contender == $c))],
    rows: [
      $rows[]
      | . as $row
      | [$samples[] | select(.row == $row.id)] as $mine
      | select($mine | length > 0)
      | ([$order[]
          | . as $c
          | [$mine[] | select(.contender == $c)]
          | select(length > 0)
          | {key: $c, value: {
              median: (if any(.[]; .value == null) then null else map(.value) | median end),
              samples: map(.value),
              notes: (map(.note) | map(select(. != "")) | unique)}}] | from_entries) as $plain
      | ($plain | map_values(. + {ratio: ratio(.median; $plain[$row.base // "nbdfuse"].median)})) as $results
      | [$row.targets[]
          | . as $target
          | $plain[.of // "remram"].median as $median
          | (if .to == null then $median else ratio($median; $plain[.to].median) end) as $value
          | . + {measured: $value, reached: holds($value; $target)}] as $targets
      | {id, group, title, short, unit, better, targets: $targets, results: $results}],
    rtt: $rtt
  }
