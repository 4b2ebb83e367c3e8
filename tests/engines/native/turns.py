"""Compiled code whose threads take turns: between two barriers one runs after the other, in an order that is given.

Where a thread needs what another one makes, and no barrier lies between, one of the two orders has it look too early:
not now and then, as when threads run at once, but every time.
"""

import re

ORDERS = {"forwards": "%thread", "backwards": "%after"}

# Whose turn it is stands where a usual barrier counts arrivals, which is 0 when a task begins. A turn goes once through
# all threads from one barrier to the next, so whoever has it again knows that the others have come as far.
TURNS = """
define internal void @await_turn(ptr %sync, i64 %threads, i64 %thread) nounwind noinline {
entry:
  %last = sub i64 %threads, 1
  %after = sub i64 %last, %thread
  br label %spin
spin:
  %turn = load atomic i64, ptr %sync acquire, align 8
  %mine = icmp eq i64 %turn, PLACE
  br i1 %mine, label %done, label %wait
wait:
  %ignored = call i32 @chainrule_yield()
  br label %spin
done:
  ret void
}

define internal void @pass_turn(ptr %sync, i64 %threads) nounwind noinline {
  %turn = load atomic i64, ptr %sync acquire, align 8
  %next = add i64 %turn, 1
  %following = urem i64 %next, %threads
  store atomic i64 %following, ptr %sync release, align 8
  ret void
}

define internal void @barrier(ptr %sync, i64 %threads, i64 %thread) nounwind noinline {
  call void @pass_turn(ptr %sync, i64 %threads)
  call void @await_turn(ptr %sync, i64 %threads, i64 %thread)
  ret void
}

define void @epoch(PARAMETERS) nounwind {
  call void @await_turn(ptr %sync, i64 %threads, i64 %thread)
  call void @together(PARAMETERS)
  call void @pass_turn(ptr %sync, i64 %threads)
  ret void
}
"""


def in_turns(text: str, order: str) -> str:
    """The module of a plan, whose threads take turns in this order, "forwards" or "backwards"."""
    text, barriers = re.subn(r"define internal void @barrier\(.*?\n}\n", "", text, flags=re.DOTALL)
    parameters = re.findall(r"define void @epoch\((.*?)\)", text)
    assert barriers == len(parameters) == 1
    text = text.replace("define void @epoch(", "define internal void @together(")
    text = text.replace("@barrier(ptr %sync, i64 %threads)", "@barrier(ptr %sync, i64 %threads, i64 %thread)")
    return text + TURNS.replace("PLACE", ORDERS[order]).replace("PARAMETERS", parameters[0])
