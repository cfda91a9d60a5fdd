"""The built-in process supervisor: a process of its own that owns children and their listening sockets.

    __main__    the process: arguments, one per state folder, signals, PID 1
    protocol    the Unix socket: one JSON object a line          messages   what may be said on it
    crew        all units: configuration, records, take-over      unit       one unit: start, restart, stop, crashes
    yard        makes instances: descriptors, environment         instance   one running process and how it is retired
    readiness   when it counts as ready                           reaping    hears of the end of each child
    spawning    fork and exec, the only place that starts one     groups     control groups, where we may make them
    sockets     listening sockets, opened once                    addresses  what they are called in `listen`
    forwarder   carries connections to ports (handoff = "port")   console    what the supervisor says of its units
    keeping     talks to the keeper                               keeper     holds sockets, reads output, outlives us
    records     what a later supervisor must know                 tailing    reads logs back
    preload/    what unmodified Node and Python servers load (handoff = "shim")
"""
