"""The least that a Python program could do instead of us: rename each lease, ask nobody and tell nobody."""

import os

NETWORK = "/var/lib/cni/networks/k8s-pod-network"
ASIDE = "/var/lib/cni/cni-lease-reset/renamed"

os.mkdir(ASIDE)
for name in os.listdir(NETWORK):
    os.rename(f"{NETWORK}/{name}", f"{ASIDE}/{name}")
