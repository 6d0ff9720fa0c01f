"""Nothing at all: the control that must be found to know everything."""

from __future__ import annotations

from jensun_ref.methods.contract import Method


class NoOp(Method):
    """Control. No training and no loss: the base saved again, under this method's name and with a manifest. Whatever an
    audit says of it is true of the base."""

    name = "noop"
    summary = "control: changes nothing"
    source = "control"
    trains = False
