"""The parts of scripts/bench: what is measured (rows), how one measurement is run
(runs, on a server from servers), what is told of it (report), and the long run
that looks for what grows (soak)."""
