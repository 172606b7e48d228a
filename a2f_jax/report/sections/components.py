"""The section about the weights of the three components in every block."""

from collections.abc import Sequence

from a2f_jax.models.a2f import A2F, SCALES, VARIANTS
from a2f_jax.progress import progress_bar
from a2f_jax.report import measure
from a2f_jax.report.figures import block_weights_figure
from a2f_jax.report.page import Cells, PageFigure, Part, Section, Table
from a2f_jax.report.sections.common import MISSING, Measured, Numbers


def component_weights(measured: Sequence[Measured], progress: bool = True) -> tuple[Section, Numbers]:
    """Plots and tabulates the weights of the three components in every block of each model.

    Args:
      measured: the models. Those whose network is not an `A2F`, and has no such components, are left out.
      progress: whether to show a progress bar.
    """
    numbers: Numbers = []
    parts: list[Part] = [
        "The output of a block is the sum of three components, each with a learned scalar: λx times its input, λres "
        "times the residual branch, and λaux times the auxiliary features. The effect of a scalar depends on the "
        "magnitude of the branch that it multiplies. The second set of panels therefore shows |λ| times the root mean "
        "square of the branch, measured on the six sample photographs of scikit-image (the central 240×240 pixels of "
        "each, downscaled)."
    ]
    measured = [m for m in measured if isinstance(m.model.network, A2F)]
    order = [*VARIANTS]
    with progress_bar(total=len(measured), unit="model", description="block weights", visible=progress) as bar:
        for scale in SCALES:
            of_scale = [m for m in measured if m.model.scale == scale]
            of_scale.sort(key=lambda m: order.index(m.model.variant) if m.model.variant in order else len(order))
            if not of_scale:
                continue
            images = measure.sample_patches(scale)
            panels, rows = {}, []
            for m in of_scale:
                found = measure.block_weights(m.model, images)
                title = f"{m.model.variant.upper()} ×{scale}"
                panels[title if title not in panels else f"{title}\n{m.label}"] = found
                numbers.append(
                    {
                        "weights": m.label,
                        "variant": m.model.variant,
                        "scale": scale,
                        "components": found.weights,
                        "magnitudes": found.magnitudes,
                    }
                )
                totals = [sum(values) for values in zip(*found.magnitudes.values(), strict=True)]
                cells = [title, m.label]
                for name in ("x", "res", "aux"):
                    if name not in found.weights:
                        cells += [MISSING, MISSING]
                        continue
                    shares = [v / t if t else 0.0 for v, t in zip(found.magnitudes[name], totals, strict=True)]
                    share = sum(shares) / len(shares)
                    cells += [f"{sum(found.weights[name]) / len(totals):.2f}", f"{share:.0%}"]
                rows.append(Cells(cells, measured=True))
                bar.update()
            names = ", ".join(panels)
            caption = f"Weights of the three components in each block, and their magnitudes: {names}."
            parts.append(
                PageFigure(f"block-weights-x{scale}", caption.replace("\n", " "), block_weights_figure(panels))
            )
            heading = [
                "Model",
                "Weights",
                *(f"{what} {c}" for c in ("λx", "λres", "λaux") for what in ("mean", "share of")),
            ]
            parts.append(Table(heading, rows, text_columns=2))
    if numbers:
        parts.append(
            "Shares are fractions of the sum of the three magnitudes. Means and shares are averaged over the blocks."
        )
    else:
        parts.append("This section requires weights of an A2F, and none were given.")
    return Section("Weights of the three components per block", parts), numbers
