"""Event, condition, action: what starts functions, jobs and workflows beside a call."""
