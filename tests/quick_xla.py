"""XLA flags with which programs compile quickly, and run slowly."""

from importlib.metadata import version

# The older emitters compile in two thirds of the time; later versions do not have them.
EMITTERS = "--xla_cpu_use_fusion_emitters=false" if version("jaxlib")[:5] == "0.10." else ""
FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    f"--xla_cpu_parallel_codegen_split_count=1 {EMITTERS}"
)
