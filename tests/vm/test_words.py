"""What an operator reads on the running machine."""

from pathlib import Path

from node import STATE, UNIT, Node

ARTEFACTS = Path(__file__).parents[2] / ".cache/vm/words"


def _keep(node: Node, name: str, command: str) -> str:
    # A terminal's width: what an operator sees is cut there.
    answer = node.try_run(f"COLUMNS=100 {command}").stdout
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    (ARTEFACTS / f"{name}.txt").write_text(f"# {command}\n{answer}")
    return answer


def test_12_what_happened_is_told_in_plain_words(node: Node) -> None:
    with node.scenario("journalctl -x, systemctl status, cni-lease-reset status"):
        node.start("lab.pods=3")
        node.pods()
        node.run("sync")
        node.power_cut()
        verdict = node.verdict()
        node.pods()
        journal = _keep(node, "journalctl", f"journalctl -b -x -u {UNIT}")
        unit = _keep(node, "systemctl", f"systemctl status --no-pager {UNIT}")
        status = _keep(node, "status", "cni-lease-reset status")
    line = f"Unclean shutdown: 3 leases set aside as {verdict.reset}, 0 kept."
    assert line in journal
    assert line in unit
    assert "Subject: Leases of an earlier boot were set aside" in journal
    assert f"{STATE}/set-aside/{verdict.reset}" in journal
    assert "There is nothing to do" in journal
    assert "@CNI_" not in journal, "a field of the catalog is not filled in"
    assert "unclean: the last boot never got to mark its shutdown as clean" in status
    assert "3 found, 3 set aside, 0 kept" in status
    assert verdict.reset in status
    assert max(map(len, status.splitlines())) <= 80
