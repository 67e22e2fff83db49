"""The configuration: the real PyYAML, and one clear line for whatever is wrong."""

import os

import pytest
from conftest import TOP, Tree
from hypothesis import given
from hypothesis import strategies as st
from programs import command

from cni_lease_reset.core.errors import ConfigError
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import config

SHIPPED = TOP / "packaging/systemd/config.yaml"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{p}, *{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\n\nnetwork: [x]\n", "config.yaml:4: unknown setting 'network', did you mean 'networks'?"),
        ("networks: [a]\nnetworks: [b]\n", "config.yaml:2: networks: set twice"),
        ("networks: k8s\n", "config.yaml:1: networks: must be a list of names like [k8s-pod-network], not 'k8s'"),
        (
            "networks: []\n",
            "config.yaml:1: networks: must be a list of names like [k8s-pod-network], not an empty list",
        ),
        ("? [a]\n: b\n", "config.yaml:1: the name of a setting must be a word"),
        (
            "networks: [[a]]\n",
            "config.yaml:1: networks: must be a list of names like [k8s-pod-network], not a list of other things",
        ),
        (
            "networks: {a: b}\n",
            "config.yaml:1: networks: must be a list of names like [k8s-pod-network], not a nested value",
        ),
        ('networks: ["../etc"]\n', "config.yaml:1: networks: '../etc' is no name of a network's directory"),
        ("networks: ['..']\n", "config.yaml:1: networks: '..' is no name of a network's directory"),
        ('networks: ["a\\nb"]\n', "config.yaml:1: networks: 'a\\nb' is no name of a network's directory"),
        ("data_dir: networks\n", "config.yaml:1: data_dir: must be an absolute path, not 'networks'"),
        ("data_dir: 5\n", "config.yaml:1: data_dir: must be an absolute path, not 5"),
        (
            "data_dir: /a/../b\n",
            "config.yaml:1: data_dir: must be written without '..', '.', '//' or a final '/', not '/a/../b'",
        ),
        *(
            (
                f"data_dir: {path}\n",
                f"config.yaml:1: data_dir: must be beside our own directory {ours}, not at, above or below it",
            )
            for path, ours in [
                ("/var/lib/cni", "/var/lib/cni/cni-lease-reset"),
                ("/", "/var/lib/cni/cni-lease-reset"),
                ("/var/lib/cni/cni-lease-reset/x", "/var/lib/cni/cni-lease-reset"),
                ("/x/cni-lease-reset", "/x/cni-lease-reset"),
            ]
        ),
        *(
            (
                f"data_dir: {place}{below}\n",
                f"config.yaml:1: data_dir: cannot be below {place}, which our unit sees empty or a reboot empties",
            )
            for place in ("/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/run")
            for below in ("", "/networks", "/a/b/networks")
        ),
        (
            "clear_when: sometimes\n",
            "config.yaml:1: clear_when: must be one of unclean, always, never, not 'sometimes'",
        ),
        ("clear_when: yes\n", "config.yaml:1: clear_when: must be one of unclean, always, never, not true"),
        (
            "max_kept_leases: true\n",
            "config.yaml:1: max_kept_leases: must be a whole decimal number from 0 or null, not true",
        ),
        (
            "max_kept_leases: -1\n",
            "config.yaml:1: max_kept_leases: must be a whole decimal number from 0 or null, not -1",
        ),
        ("keep_resets: 0\n", "config.yaml:1: keep_resets: must be a whole decimal number from 1, not 0"),
        *(
            (
                f"{setting}: {text}\n",
                f"config.yaml:1: {setting}: must be a whole decimal number from {least}, not {text!r}",
            )
            for setting, least in (("max_kept_leases", "0 or null"), ("keep_resets", "1"))
            for text in ("0110", "1:30", "0x6E", "0b11", "1_000", "+5", "-0110", "00")
        ),
        (
            'keep_resets: !!int "0110"\n',
            "config.yaml:1: keep_resets: must be a whole decimal number from 1, not '0110'",
        ),
        ("networks: [0110]\n", "config.yaml:1: networks: must be a list of names"),
        *(
            (f"{setting}: {tag} {text}\n", f"config.yaml:1: {setting}: {text!r} is no {tag[2:]}")
            for setting, tag, text in [
                ("clear_when", "!!bool", "foo"),
                ("clear_when", "!!timestamp", "foo"),
                ("max_kept_leases", "!!int", "x"),
                ("max_kept_leases", "!!float", "x"),
            ]
        ),
        ("networks: [!!timestamp x]\n", "config.yaml:1: networks: 'x' is no timestamp"),
        ("runtime_units: [-k3s.service]\n", "config.yaml:1: runtime_units: '-k3s.service' is no service"),
        ("runtime_units: ['k3s@.service']\n", "config.yaml:1: runtime_units: 'k3s@.service' is no service"),
        ("runtime_units: [k3s]\n", "config.yaml:1: runtime_units: 'k3s' is no service, did you mean 'k3s.service'?"),
        ("- networks\n", "config.yaml:1: must hold settings like 'clear_when: always'"),
        (
            "networks:\n\t- a\n",
            "config.yaml:2: not valid YAML: found character '\\t' that cannot start any token, indent with spaces",
        ),
        ("keep_resets: 1\n---\nkeep_resets: 2\n", "config.yaml:2: not valid YAML: but found another document"),
        ("keep_resets: !!python/object:os.system x\n", "could not determine a constructor"),
        ("keep_resets: 2001-99-99\n", "config.yaml:1: keep_resets: "),
        ("[" * 5000, "config.yaml: not valid YAML: nested too deeply"),
        ("a: \0\n", "config.yaml: not valid YAML: unacceptable character"),
        (BOMB, "config.yaml:1: unknown setting 'a'; cni-lease-reset.yaml(5) lists all"),
        (BOMB.replace("i: &i", "networks: &i"), "config.yaml:1: unknown setting 'a'"),
        ("clear_when: [never]\n", "config.yaml:1: clear_when: must be one of unclean, always, never, not a list"),
        ("networks: &n [*n]\n", "config.yaml:1: networks: must be a list of names"),
    ],
)
def test_whatever_is_wrong_gets_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(text.encode())
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == 78


@pytest.mark.parametrize("place", ["/home/cni", "/root/cni", "/runner", "/srv/tmp", "/var/tmpfs", "/mnt/run"])
def test_elsewhere_a_data_dir_may_be(place: str) -> None:
    assert config.parse(f"data_dir: {place}/networks\n".encode()).data_dir == f"{place}/networks"


def test_below_a_root_it_is_as_on_a_machine(tree: Tree) -> None:
    """The path within the tree counts, not where the tree is."""
    tree.config("data_dir: /srv/networks\n")
    assert config.read(tree.node).data_dir == "/srv/networks"
    tree.config("data_dir: /tmp/networks\n")
    done = command(tree.node, "boot")
    assert done.returncode == 78
    assert "leases kept: config.yaml:1: data_dir: cannot be below /tmp, " in done.stderr


def test_what_is_not_utf8_is_told_with_its_line() -> None:
    with pytest.raises(ConfigError, match="config.yaml:2: is not UTF-8"):
        config.parse(b"# fine\n# \xff\n")


@given(st.text(alphabet="abn:[]{}&*!-#'\"\n\t |>0", max_size=60))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    try:
        assert config.parse(text.encode()) == Config()
    except ConfigError as error:
        assert "\n" not in str(error)


def test_the_shipped_file_is_the_defaults_and_uncommented_still_is() -> None:
    text = SHIPPED.read_text()
    assert config.parse(text.encode()) == Config()
    settings = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#") and not line.startswith("# "))
    assert config.parse(settings.encode()) == Config()


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "{}\n"])
def test_an_empty_file_is_the_defaults(text: str) -> None:
    assert config.parse(text.encode()) == Config()


def test_a_link_that_leads_nowhere_is_not_the_defaults(tree: Tree) -> None:
    (tree.root / "etc/cni-lease-reset").mkdir(parents=True)
    (tree.root / "etc/cni-lease-reset/config.yaml").symlink_to("gone.yaml")
    with pytest.raises(ConfigError, match="a symbolic link that leads nowhere"):
        config.read(tree.node)


def test_a_file_that_others_can_write_is_refused(tree: Tree) -> None:
    tree.config("keep_resets: 5\n")
    assert config.read(tree.node).keep_resets == 5
    (tree.root / "etc/cni-lease-reset/config.yaml").chmod(0o664)
    with pytest.raises(ConfigError, match="can be written by others than root"):
        config.read(tree.node)


def test_a_file_of_another_owner_is_refused(tree: Tree) -> None:
    tree.config("keep_resets: 5\n")
    os.chown(tree.root / "etc/cni-lease-reset/config.yaml", 4242, 4242)
    with pytest.raises(ConfigError, match="can be written by others than root"):
        config.read(tree.node)


def test_a_file_that_is_too_long_is_refused(tree: Tree) -> None:
    tree.config("clear_when: never # " + "x" * 70_000)
    with pytest.raises(ConfigError, match=r"^config\.yaml: cannot be read: .*: longer than 64 KiB$"):
        config.read(tree.node)


def test_what_is_no_file_is_refused_at_once(tree: Tree) -> None:
    (tree.root / "etc/cni-lease-reset").mkdir(parents=True)
    os.mkfifo(tree.root / "etc/cni-lease-reset/config.yaml")
    with pytest.raises(ConfigError, match="cannot be read: .*not a regular file"):
        config.read(tree.node)


def test_a_file_that_cannot_be_opened_is_told(tree: Tree) -> None:
    (tree.root / "etc").write_text("")
    with pytest.raises(ConfigError, match="cannot be read: .*Not a directory"):
        config.read(tree.node)
