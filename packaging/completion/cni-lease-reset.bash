# bash completion for cni-lease-reset(8)
_cni_lease_reset() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words verb="" i
    if [[ $before == --root ]]; then
        mapfile -t COMPREPLY < <(compgen -A directory -- "$word")
        return
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --root) ((i++)) ;;
            -*) ;;
            *) verb=${COMP_WORDS[i]} && break ;;
        esac
    done
    case $verb in
        "") words="boot shutdown status recover restore history config --root --version --help" ;;
        boot) words="--dry-run --help" ;;
        shutdown) words="--force --help" ;;
        status) words="--json --metrics --check --help" ;;
        recover) words="--dry-run --yes --crowded --help" ;;
        restore) words="--help $(ls /var/lib/cni/cni-lease-reset/set-aside 2>/dev/null)" ;;
        history) words="--json --help" ;;
        config) words="--help" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _cni_lease_reset cni-lease-reset
