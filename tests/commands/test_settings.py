from cni_lease_reset.commands.settings import as_text as settings_text
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import config


def test_what_is_printed_is_a_configuration_again() -> None:
    settings = config.parse(
        b"networks: ['k8s-*', a]\nmax_kept_leases: null\ndata_dir: /data/cni/networks\nclear_when: always\n"
    )
    printed = settings_text(settings)
    assert config.parse(printed.encode()) == settings
    assert "networks: [k8s-*, a]  # from the file\n" in printed
    assert "keep_resets: 3  # default\n" in printed
    assert "# ReadWritePaths=-/data/cni\n" in printed
    assert "systemctl edit" not in settings_text(Config())


def test_a_drop_in_takes_any_path() -> None:
    printed = settings_text(config.parse(b"data_dir: /my data/100%/networks\n"))
    assert '# RequiresMountsFor="/my data/100%%"\n' in printed
    assert '# ReadWritePaths="-/my data/100%%"\n' in printed
