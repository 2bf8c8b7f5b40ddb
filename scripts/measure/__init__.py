"""The parts of scripts/bench: what is measured (rows), how one measurement is run
(runs, on a server from servers), what is reported of it (report), the long run that
looks for what grows (soak), and what several nodes take (cluster, on nodes)."""
