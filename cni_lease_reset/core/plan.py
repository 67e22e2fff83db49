"""Verdict, leases and policy in, what to set aside out. Pure."""

from .findings import Network, Step
from .model import ClearWhen, Config, Judgement, Verdict


def draw_up(judgement: Judgement, networks: tuple[Network, ...], config: Config) -> tuple[Step, ...]:
    """List what is due, network by network; a network of which nothing is due is not in it."""
    return tuple(filter(None, (_due(judgement, network, config) for network in networks)))


def _due(judgement: Judgement, network: Network, config: Config) -> Step | None:
    if judgement.verdict is Verdict.SAME_BOOT or config.clear_when is ClearWhen.NEVER or not network.found:
        return None
    if judgement.verdict is not Verdict.CLEAN:
        return Step(network.name, judgement.brief)
    if config.clear_when is ClearWhen.ALWAYS:
        return Step(network.name, "clear_when: always")
    if is_crowded(network, config.max_kept_leases):
        return Step(network.name, f"more than {config.max_kept_leases} leases")
    if any(lease.torn for lease in network.found):
        return Step(network.name, "torn leases", torn_only=True)
    return None


def is_crowded(network: Network, limit: int | None) -> bool:
    """Whether the leases of one address family exceed the limit once the torn ones are out."""
    inet6 = [":" in lease.address for lease in network.found if not lease.torn]
    return limit is not None and max(inet6.count(True), inet6.count(False)) > limit
