"""What jaxrw costs: each module is one command, `python -m benchmarks.NAME --help`; `make bench` runs them."""

from jaxrw.system import compilation

compilation.choose_cpu_kernels()  # as launch.py does
