# SPDX-License-Identifier: Apache-2.0
#
# Results to a table of cells: an array of rows, each an array of texts, the heading first.  Only the rows of
# $group (null: those of none), and the contenders that are in them; null if there are no such rows.

def name: {tmpfs: "tmpfs", nbdfuse: "nbdfuse", qsd: "qemu-storage-daemon", remram: "remram", nbd: "remram, nbd://", local: "remram, memory:", managed: "remram, cache="}[.];

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
  + (if .of == null or .of == "managed" then "" else " (\(.of | name))" end);

def reached: if . == null then "not measured" elif . then "yes" else "no" end;

([.rows[] | select(.group == $group)]) as $rows
| [.contenders[] | select(. as $c | any($rows[]; .results[$c]))] as $contenders
| if $rows == [] then null else
  [["work", "unit"] + ($contenders | map(name)) + ["target", "reached"]]
  + [$rows[] | . as $row
     | [.title, .unit]
       + [$contenders[] | $row.results[.] | cell]
       + [(.targets | map(target) | join("; ")),
          (.targets | map(.reached | reached) | if unique | length == 1 then .[0] else join("; ") end)]]
  end
