"""Many runs: grids become jobs, and jobs run here, on Slurm or on Ray. No torch."""
