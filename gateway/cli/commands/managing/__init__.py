"""Commands that show and change what a gateway keeps: jobs, runs, triggers, keys."""
