"""How threads wait for each other in native code: a barrier inside a function, and the service that workers are in.

Two blocks of memory, both of the `Pool` (threads.py), each word that is written often on a cache line of its own:

sync    ARRIVED     threads that stand at the barrier
        GENERATION  barriers passed; whoever waits, waits for it to change
        LIMIT       pauses before a waiting thread offers its core to others
        WAITS       how often a thread waited long: so long that it offered its core seven times as often

job     BUSY        1 while a caller uses the pool
        DONE        workers that finished
        TASK        what to run: the function, the number of its arguments, the arguments
        THREADS     on how many threads
        PATIENCE    pauses without work after which a worker parks
        STATES      one line for each worker: IDLE, PARKED, CLAIMED, GO
"""

from chainrule.engines.native.host import Host
from chainrule.engines.native.ir import Module, Verbatim

LINE = 128  # bytes: two cache lines, since processors fetch them in pairs

ARRIVED, GENERATION, LIMIT, WAITS = 0, LINE, 2 * LINE, 3 * LINE
SYNC_BYTES = 4 * LINE

BUSY, DONE, TASK, THREADS, PATIENCE, STATES = 0, LINE, 2 * LINE, 2 * LINE + 8, 2 * LINE + 16, 3 * LINE
MAX_THREADS = 256
JOB_BYTES = STATES + MAX_THREADS * LINE

MAX_ARGUMENTS = 8
TASK_WORDS = 2 + MAX_ARGUMENTS

IDLE, PARKED, CLAIMED, GO = 0, 1, 2, 3
"""A worker: looking for work; asleep in Python; promised to a caller, so that it may not park; told to run the task."""

TAKEN, ASLEEP = -1, -2
"""What `launch` answers where nothing was begun: another caller has the pool; a worker sleeps."""


def emit(module: Module, host: Host) -> None:
    """Write what a compiled step calls: `void @barrier(ptr %sync, i64 %threads)`.

    After it, every thread sees what all wrote before it. So where all look for an error behind a barrier, and nobody
    writes one before the next, they decide alike.
    """
    pause = _pause(module, host)
    module.declare("chainrule_yield", "i32", [])
    module.add("barrier", Verbatim(_barrier(pause)))


def runtime(host: Host) -> str:
    """The module that is there once in a process.

    `void @serve(ptr %job, i64 %thread)`: what a worker is in. Runs what it is told to; after PATIENCE pauses without
    work it parks, which means that it returns.
    `i64 @launch(ptr %job, ptr %sync, ptr %task, i64 %threads, i64 %limit, i64 %patience)`: run a task on threads
    0 (the caller) to threads − 1; the answer is the number of long waits. Where a worker sleeps, the caller offers its
    core `patience` times; if that does not help, everything is as before and the answer says so.
    `void @alone(ptr %task)`: run a task on the caller alone.
    `void @rest(i64 %pauses)`: to measure how long a pause is.
    """
    module = Module()
    pause = _pause(module, host)
    module.declare("chainrule_yield", "i32", [])
    module.add("invoke", Verbatim(_invoke()))
    module.add("alone", Verbatim(ALONE))
    module.add("rest", Verbatim(REST.replace("PAUSE", pause)))
    module.add("serve", Verbatim(_numbers(SERVE).replace("PAUSE", pause)))
    module.add("claim", Verbatim(_numbers(CLAIM).replace("PAUSE", pause)))
    module.add("release", Verbatim(_numbers(SET_STATES)))
    module.add("launch", Verbatim(_numbers(LAUNCH).replace("PAUSE", pause)))
    return module.text()


def _pause(module: Module, host: Host) -> str:
    """Tells the processor that a loop waits: it saves power, and leaves more to the other thread of the core."""
    if host.x86:
        module.declare("llvm.x86.sse2.pause", "void", [])
        return "call void @llvm.x86.sse2.pause()"
    if host.arm:
        module.declare("llvm.aarch64.hint", "void", ["i32"])
        return "call void @llvm.aarch64.hint(i32 1)"
    return ""


def _numbers(text: str) -> str:
    """Put the constants of this module into a text, @NAME@, and the loop WAIT."""
    text = text.replace("WAIT\n", WAIT)
    for name in ("ARRIVED", "GENERATION", "LIMIT", "WAITS", "BUSY", "DONE", "TASK", "THREADS", "PATIENCE",
                 "STATES", "IDLE", "PARKED", "CLAIMED", "GO", "TAKEN", "ASLEEP", "LINE"):  # fmt: skip
        text = text.replace(f"@{name}@", str(globals()[name]))
    return text


def _barrier(pause: str) -> str:
    return _numbers(BARRIER).replace("PAUSE", pause)


# How a thread that is not patient for ever waits: in the loop `spin`, whose turns %i counts, for at most %limit pauses;
# then it offers its core at each turn. When it has done that seven times as often, the wait is counted as a long one:
# where work is uneven, threads wait for a part of a millisecond all the time, but not as long as a system takes before
# it gives a core back.
WAIT = """wait:
  %i1 = add i64 %i, 1
  %patient = icmp slt i64 %i, %limit
  br i1 %patient, label %pause, label %impatient
pause:
  PAUSE
  br label %spin
impatient:
  %late = shl i64 %limit, 3
  %now_long = icmp eq i64 %i, %late
  br i1 %now_long, label %count, label %yield
count:
  %long_waits_at = getelementptr i8, ptr %sync, i64 @WAITS@
  %waits = atomicrmw add ptr %long_waits_at, i64 1 monotonic
  br label %yield
yield:
  %ignored = call i32 @chainrule_yield()
  br label %spin
"""

# The last to arrive sets the number of arrivals back before it opens the gate, so nobody can arrive at the next barrier
# before that. The generation is read before arriving: only then is it sure that it has not changed yet.
BARRIER = """
define internal void @barrier(ptr %sync, i64 %threads) nounwind noinline {
entry:
  %single = icmp slt i64 %threads, 2
  br i1 %single, label %done, label %look
look:
  %generation_at = getelementptr i8, ptr %sync, i64 @GENERATION@
  %generation = load atomic i64, ptr %generation_at acquire, align 8
  %before = atomicrmw add ptr %sync, i64 1 acq_rel
  %mine = add i64 %before, 1
  %last = icmp eq i64 %mine, %threads
  br i1 %last, label %open, label %waiting
open:
  %following = add i64 %generation, 1
  store atomic i64 0, ptr %sync monotonic, align 8
  store atomic i64 %following, ptr %generation_at release, align 8
  ret void
waiting:
  %limit_at = getelementptr i8, ptr %sync, i64 @LIMIT@
  %limit = load i64, ptr %limit_at, align 8
  br label %spin
spin:
  %i = phi i64 [ 0, %waiting ], [ %i1, %pause ], [ %i1, %yield ]
  %now = load atomic i64, ptr %generation_at acquire, align 8
  %passed = icmp ne i64 %now, %generation
  br i1 %passed, label %done, label %wait
WAIT
done:
  ret void
}
"""


def _invoke() -> str:
    """Call the function of a task with its arguments, thread and threads: one call for each number of arguments."""
    cases = "".join(f"    i64 {n}, label %with{n}\n" for n in range(MAX_ARGUMENTS + 1))
    calls = []
    for n in range(MAX_ARGUMENTS + 1):
        calls.append(f"with{n}:")
        for k in range(n):
            calls.append(f"  %p{n}_{k} = getelementptr i64, ptr %task, i64 {2 + k}")
            calls.append(f"  %a{n}_{k} = load i64, ptr %p{n}_{k}, align 8")
        arguments = "".join(f"i64 %a{n}_{k}, " for k in range(n))
        calls.append(f"  call void %function({arguments}i64 %thread, i64 %threads)")
        calls.append("  ret void")
    return f"""
define internal void @invoke(ptr %task, i64 %thread, i64 %threads) nounwind noinline {{
entry:
  %function = load ptr, ptr %task, align 8
  %count_at = getelementptr i64, ptr %task, i64 1
  %count = load i64, ptr %count_at, align 8
  switch i64 %count, label %with0 [
{cases}  ]
{chr(10).join(calls)}
}}
"""


ALONE = """
define void @alone(ptr %task) nounwind {
  call void @invoke(ptr %task, i64 0, i64 1)
  ret void
}
"""

REST = """
define void @rest(i64 %pauses) nounwind {
entry:
  br label %spin
spin:
  %i = phi i64 [ 0, %entry ], [ %i1, %spin ]
  PAUSE
  %i1 = add i64 %i, 1
  %again = icmp slt i64 %i1, %pauses
  br i1 %again, label %spin, label %done
done:
  ret void
}
"""

# Looking for work must not keep others from theirs, least of all a worker of the same task where cores are few.
SERVE = """
define void @serve(ptr %job, i64 %thread) nounwind {
entry:
  %line = mul i64 %thread, @LINE@
  %offset = add i64 %line, @STATES@
  %state_at = getelementptr i8, ptr %job, i64 %offset
  %done_at = getelementptr i8, ptr %job, i64 @DONE@
  %task_at = getelementptr i8, ptr %job, i64 @TASK@
  %threads_at = getelementptr i8, ptr %job, i64 @THREADS@
  %patience_at = getelementptr i8, ptr %job, i64 @PATIENCE@
  %entered = cmpxchg ptr %state_at, i64 @PARKED@, i64 @IDLE@ seq_cst seq_cst
  %alone = extractvalue { i64, i1 } %entered, 1
  br i1 %alone, label %idle, label %out
idle:
  br label %spin
spin:
  %i = phi i64 [ 0, %idle ], [ %i1, %again ], [ %i1, %offer ]
  %state = load atomic i64, ptr %state_at acquire, align 8
  %go = icmp eq i64 %state, @GO@
  br i1 %go, label %work, label %wait
wait:
  PAUSE
  %i1 = add i64 %i, 1
  %pauses = load atomic i64, ptr %patience_at monotonic, align 8
  %patient = icmp slt i64 %i1, %pauses
  br i1 %patient, label %again, label %park
again:
  %low = and i64 %i1, 63
  %often = icmp eq i64 %low, 0
  br i1 %often, label %offer, label %spin
offer:
  %ignored = call i32 @chainrule_yield()
  br label %spin
park:
  %tried = cmpxchg ptr %state_at, i64 @IDLE@, i64 @PARKED@ seq_cst seq_cst
  %parked = extractvalue { i64, i1 } %tried, 1
  br i1 %parked, label %out, label %idle
work:
  %task = load ptr, ptr %task_at, align 8
  %threads = load i64, ptr %threads_at, align 8
  call void @invoke(ptr %task, i64 %thread, i64 %threads)
  store atomic i64 @IDLE@, ptr %state_at release, align 8
  %finished = atomicrmw add ptr %done_at, i64 1 acq_rel
  br label %idle
out:
  ret void
}
"""

# Promise worker after worker to this caller. One that sleeps is waited for; how many were claimed is the answer.
CLAIM = """
define internal i64 @claim(ptr %job, i64 %threads, i64 %patience) nounwind noinline {
entry:
  br label %next
next:
  %k = phi i64 [ 1, %entry ], [ %k1, %claimed ]
  %left = phi i64 [ %patience, %entry ], [ %left_now, %claimed ]
  %line = mul i64 %k, @LINE@
  %offset = add i64 %line, @STATES@
  %state_at = getelementptr i8, ptr %job, i64 %offset
  %all = icmp sge i64 %k, %threads
  br i1 %all, label %out, label %try
try:
  %left_now = phi i64 [ %left, %next ], [ %left1, %sleeping ]
  %tried = cmpxchg ptr %state_at, i64 @IDLE@, i64 @CLAIMED@ seq_cst seq_cst
  %got = extractvalue { i64, i1 } %tried, 1
  br i1 %got, label %claimed, label %asleep
claimed:
  %k1 = add i64 %k, 1
  br label %next
asleep:
  %tired = icmp sle i64 %left_now, 0
  br i1 %tired, label %out, label %sleeping
sleeping:
  %left1 = sub i64 %left_now, 1
  %ignored = call i32 @chainrule_yield()
  br label %try
out:
  ret i64 %k
}
"""

SET_STATES = """
define internal void @release(ptr %job, i64 %end, i64 %state) nounwind noinline {
entry:
  br label %next
next:
  %k = phi i64 [ 1, %entry ], [ %k1, %set ]
  %more = icmp slt i64 %k, %end
  br i1 %more, label %set, label %out
set:
  %line = mul i64 %k, @LINE@
  %offset = add i64 %line, @STATES@
  %state_at = getelementptr i8, ptr %job, i64 %offset
  store atomic i64 %state, ptr %state_at release, align 8
  %k1 = add i64 %k, 1
  br label %next
out:
  ret void
}
"""

# All in one native call: an interrupt of Python comes before it or after it, never in between.
LAUNCH = """
define i64 @launch(ptr %job, ptr %sync, ptr %task, i64 %threads, i64 %limit, i64 %patience) nounwind {
entry:
  %asked = cmpxchg ptr %job, i64 0, i64 1 acquire monotonic
  %free = extractvalue { i64, i1 } %asked, 1
  br i1 %free, label %gather, label %taken
taken:
  ret i64 @TAKEN@
gather:
  %there = call i64 @claim(ptr %job, i64 %threads, i64 %patience)
  %complete = icmp sge i64 %there, %threads
  br i1 %complete, label %begin, label %give_up
give_up:
  call void @release(ptr %job, i64 %there, i64 @IDLE@)
  store atomic i64 0, ptr %job release, align 8
  ret i64 @ASLEEP@
begin:
  %limit_at = getelementptr i8, ptr %sync, i64 @LIMIT@
  %waits_at = getelementptr i8, ptr %sync, i64 @WAITS@
  %done_at = getelementptr i8, ptr %job, i64 @DONE@
  %task_at = getelementptr i8, ptr %job, i64 @TASK@
  %threads_at = getelementptr i8, ptr %job, i64 @THREADS@
  store atomic i64 0, ptr %sync monotonic, align 8
  store atomic i64 0, ptr %waits_at monotonic, align 8
  store i64 %limit, ptr %limit_at, align 8
  store atomic i64 0, ptr %done_at monotonic, align 8
  store ptr %task, ptr %task_at, align 8
  store i64 %threads, ptr %threads_at, align 8
  call void @release(ptr %job, i64 %threads, i64 @GO@)
  call void @invoke(ptr %task, i64 0, i64 %threads)
  %workers = sub i64 %threads, 1
  br label %spin
spin:
  %i = phi i64 [ 0, %begin ], [ %i1, %pause ], [ %i1, %yield ]
  %finished = load atomic i64, ptr %done_at acquire, align 8
  %complete_now = icmp sge i64 %finished, %workers
  br i1 %complete_now, label %done, label %wait
WAIT
done:
  %long = load atomic i64, ptr %waits_at monotonic, align 8
  store atomic i64 0, ptr %job release, align 8
  ret i64 %long
}
"""
