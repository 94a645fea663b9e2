# SPDX-License-Identifier: Apache-2.0
#
# Results to a table of cells: an array of rows, each an array of texts, the heading first.

def name: {tmpfs: "tmpfs", nbdfuse: "nbdfuse", qsd: "qemu-storage-daemon", remram: "remram", nbd: "remram, nbd://"}[.];

# Three significant digits.
def digits($n): (. * pow(10; $n) | round) / pow(10; $n) | tostring;
def figure:
  if . == null then "-"
  elif . == 0 then "0"
  elif . >= 100 then digits(0)
  elif . >= 10 then digits(1)
  else digits(2) end;

def cell:
  if . == null then "-"
  elif .median == null then (.notes | map(sub(" \\(.*"; "")) | unique | join(", "))
  elif .ratio == null then .median | figure
  else "\(.median | figure) (\(.ratio | figure)×)" end;

def target:
  {"<=": "≤", ">=": "≥"}[.op] + " "
  + (if .to == null then .value | figure else "\(.value | figure)× \(.to)" end)
  + (if .of then " (\(.of | name))" else "" end);

def reached: if . == null then "not measured" elif . then "yes" else "no" end;

. as $all
| [["work", "unit"] + (.contenders | map(name)) + ["target", "reached"]]
  + [.rows[] | . as $row
     | [.title, .unit]
       + [$all.contenders[] | $row.results[.] | cell]
       + [(.targets | map(target) | join("; ")),
          (.targets | map(.reached | reached) | if unique | length == 1 then .[0] else join("; ") end)]]
