"""batch/v1beta1: the older version of CronJob, with the same fields."""

from api.kinds import batch


class CronJob(batch.CronJob, frozen=True, kw_only=True):
    """Cron Job."""
