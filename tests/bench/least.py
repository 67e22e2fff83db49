"""The least that a Python program could do instead of us: read and rename each lease, ask nobody and tell nobody."""

import os

NETWORK = os.open("/var/lib/cni/networks/k8s-pod-network", os.O_RDONLY)
os.mkdir("/var/lib/cni/cni-lease-reset/least")
ASIDE = os.open("/var/lib/cni/cni-lease-reset/least", os.O_RDONLY)

names = os.listdir(NETWORK)
for name in names:
    lease = os.open(name, os.O_RDONLY, dir_fd=NETWORK)
    os.read(lease, 4096)
    os.close(lease)
for name in names:
    os.rename(name, name, src_dir_fd=NETWORK, dst_dir_fd=ASIDE)
