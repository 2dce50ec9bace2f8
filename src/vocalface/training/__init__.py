"""What every training shares: checkpoints, exact resume, schedules, progress, reports."""
