"""The rules of placement, one topic a file; ``master.scheduler.profile`` lists them."""
