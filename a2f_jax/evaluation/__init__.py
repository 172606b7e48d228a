"""Metrics (PSNR, SSIM, LPIPS), the benchmark protocol, result tables and side-by-side images."""
