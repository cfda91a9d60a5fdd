"""The built-in process supervisor: a process of its own that owns children and their listening sockets.

    __main__    the process: arguments, one per state folder, signals, PID 1
    protocol    the Unix socket: one JSON object a line          messages   what may be said on it
    crew        all units: configuration, records, take-over      unit       one unit: start, restart, stop, crashes
    instance    one running process and how it is retired         readiness  when it counts as ready
    groups      control groups, where we may make them
    spawning    fork and exec, the only place that starts one     sockets    listening sockets, opened once
    keeping     talks to the keeper                               keeper     holds sockets, reads output, outlives us
    records     what a later supervisor must know                 tailing    reads logs back
    preload/    what unmodified Node and Python servers load (handoff = "shim")
"""
