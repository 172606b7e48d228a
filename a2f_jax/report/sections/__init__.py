"""The sections of the report: each function returns a section and the numbers that it shows."""

from a2f_jax.report.sections.common import Measured, measure_weights
from a2f_jax.report.sections.components import component_weights
from a2f_jax.report.sections.scores import comparison, lpips, running_time
from a2f_jax.report.sections.sizes import ablation, compared_sizes, head_kernels, model_sizes
from a2f_jax.report.sections.visual import Example, default_examples, example_from_file, visual_comparison

__all__ = [
    "Example",
    "Measured",
    "ablation",
    "compared_sizes",
    "comparison",
    "component_weights",
    "default_examples",
    "example_from_file",
    "head_kernels",
    "lpips",
    "measure_weights",
    "model_sizes",
    "running_time",
    "visual_comparison",
]
