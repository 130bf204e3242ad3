"""Progress of jobs, runs and set-up, shown on a terminal."""
