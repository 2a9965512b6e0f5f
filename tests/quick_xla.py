"""XLA flags with which programs compile quickly, at the cost of their speed."""

from importlib.metadata import version

FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # a third less; later versions do not know the flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
