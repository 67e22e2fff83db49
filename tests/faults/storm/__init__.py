"""A small machine in namespaces of its own, and a storm of real pods on it, beside which ``recover`` runs in a loop."""

from typing import NamedTuple


class Storm(NamedTuple):
    """What is to be tried."""

    pods: int
    blind: str = ""  # what is changed about the program's sight, one of `blind.KINDS`
    young: bool = False  # every lease stays as fresh as it was written, and a third of the addresses are free


class Outcome(NamedTuple):
    """What was seen until all pods had come and gone, or until the first harm."""

    harm: str  # to a living pod; empty: none
    pods: int  # those that lived to their end
    waited: int  # those of them that found no address free, and tried again
    passes: int  # of `recover`
    refused: list[str]  # what was said by those of them that were busy or refused: the machine may be
    leaked: int  # leases of nobody: planted, or left by a pod for which no DEL came
    gone: int  # those of them that are no longer there
    seconds: float
