# fish completion for cni-lease-reset(8)
set -l verbs boot shutdown status recover restore config
complete -c cni-lease-reset -f
complete -c cni-lease-reset -l help -d 'Show the usage'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -l root -r -a '(__fish_complete_directories)' -d 'Work on the tree below DIR'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -l version -d 'Print the version'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -a boot -d 'Judge the last boot and set aside what it leaked'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -a shutdown -d 'Mark this shutdown as clean'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -a status -d 'Tell what the last boot did, and how things stand'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -a recover -d 'Set aside the leases whose container does not live'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -a restore -d 'Put the leases of a reset back'
complete -c cni-lease-reset -n "not __fish_seen_subcommand_from $verbs" -a config -d 'Print the effective configuration'
complete -c cni-lease-reset -n '__fish_seen_subcommand_from boot' -l dry-run -d 'Change nothing'
complete -c cni-lease-reset -n '__fish_seen_subcommand_from shutdown' -l force -d 'Do not ask systemd'
complete -c cni-lease-reset -n '__fish_seen_subcommand_from status' -l json -d 'For programs'
complete -c cni-lease-reset -n '__fish_seen_subcommand_from recover' -l dry-run -d 'Change nothing'
complete -c cni-lease-reset -n '__fish_seen_subcommand_from recover' -l yes -d 'Do not ask'
complete -c cni-lease-reset -n '__fish_seen_subcommand_from restore' -a '(command ls /var/lib/cni/cni-lease-reset/set-aside 2>/dev/null)'
