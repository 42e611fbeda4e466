"""Numbers as people and command lines read them."""

from __future__ import annotations

from decimal import Decimal


def in_digits(number: float) -> str:
    """A number in digits, without an exponent, as short as it can be without loss."""
    return format(Decimal(repr(number)).normalize(), "f")
