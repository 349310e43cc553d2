"""Numbers that may be given as a part of another: ``maxSurge: 25%``."""


def resolve(value: int | str | None, of: int, *, absent: int | str, up: bool) -> int:
    """Return a number, or a percentage of ``of`` as a number that is rounded ``up`` or down; None means ``absent``."""
    if value is None:
        value = absent
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    part = of * int(value[:-1])
    return -(-part // 100) if up else part // 100
