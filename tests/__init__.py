"""The tests: a package of their own, since torch-fidelity installs one of this name, which would be found instead."""
