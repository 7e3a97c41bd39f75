"""Where evaluations are computed: in this process, in several, or on a Ray cluster."""
