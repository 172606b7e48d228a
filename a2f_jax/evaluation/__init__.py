"""PSNR, SSIM, LPIPS, the benchmark protocol, tables and pictures."""
