"""XLA flags with which programs compile quickly."""

from importlib.metadata import version

# The older emitters compile in two thirds of the time; later versions do not have them.
EMITTERS = "--xla_cpu_use_fusion_emitters=false" if version("jaxlib")[:5] == "0.10." else ""
FLAGS = f"--xla_backend_optimization_level=0 {EMITTERS}"  # slow programs
