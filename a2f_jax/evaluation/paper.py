"""What the A2F paper's authors published.

Source: the slides of Wang et al., "Lightweight single-image super-resolution network with attentive auxiliary
feature learning" (ACCV 2020): PSNR and SSIM from the table "Comparison with SOTAs" (×2 and ×4), LPIPS from
"LPIPS/Gflops on five datasets for scale x4". They give nothing for ×3, and LPIPS of A2F-SD and A2F-L only.

Copied as printed, which for the SSIM of A2F-SD ×4 on B100 is 0.7373; the published weights give 0.7335.
"""


def _figures(*scores: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """Names the figures of one row: for every set PSNR in dB, SSIM and, where there is a third, LPIPS."""
    sets = ("set5", "set14", "b100", "urban100", "manga109")
    return {
        name: dict(zip(("psnr", "ssim", "lpips"), score, strict=False))
        for name, score in zip(sets, scores, strict=True)
    }


PUBLISHED = {
    ("a2f-s", 2): _figures(
        (37.79, 0.9597), (33.32, 0.9152), (31.99, 0.8972), (31.44, 0.9211), (38.11, 0.9757)
    ),
    ("a2f-sd", 2): _figures(
        (37.91, 0.9602), (33.45, 0.9164), (32.08, 0.8986), (31.79, 0.9246), (38.52, 0.9767)
    ),
    ("a2f-m", 2): _figures(
        (38.04, 0.9607), (33.67, 0.9184), (32.18, 0.8996), (32.27, 0.9294), (38.87, 0.9774)
    ),
    ("a2f-l", 2): _figures(
        (38.09, 0.9607), (33.78, 0.9192), (32.23, 0.9002), (32.46, 0.9313), (38.95, 0.9772)
    ),
    ("a2f-s", 4): _figures(
        (31.87, 0.8900), (28.36, 0.7760), (27.41, 0.7305), (25.58, 0.7685), (29.77, 0.8987)
    ),
    ("a2f-sd", 4): _figures(
        (32.06, 0.8928, 0.1731),
        (28.47, 0.7790, 0.2870),
        (27.48, 0.7373, 0.3761),
        (25.80, 0.7767, 0.2375),
        (30.16, 0.9038, 0.1112),
    ),
    ("a2f-m", 4): _figures(
        (32.28, 0.8955), (28.62, 0.7828), (27.58, 0.7364), (26.17, 0.7892), (30.57, 0.9100)
    ),
    ("a2f-l", 4): _figures(
        (32.32, 0.8964, 0.1733),
        (28.67, 0.7839, 0.2846),
        (27.62, 0.7379, 0.3698),
        (26.32, 0.7931, 0.2194),
        (30.72, 0.9115, 0.1056),
    ),
}
"""`PUBLISHED[variant, scale][dataset][metric]`, in the form of a result's `"datasets"`."""
