"""What CNI and flannel leave on a node about their pools."""

import json

from conftest import Tree

FLANNEL = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
IPV6 = "FLANNEL_IPV6_NETWORK=fd00:42::/56\nFLANNEL_IPV6_SUBNET=fd00:42:0:3::1/64\n"


def conflist(tree: Tree, ipam: object, name: str = "k8s-pod-network", file: str = "10-canal.conflist") -> None:
    write(tree, file, {"name": name, "plugins": [{"type": "calico", "ipam": ipam}, {"type": "portmap"}]})


def write(tree: Tree, file: str, document: object) -> None:
    tree.put(f"etc/cni/net.d/{file}", document if isinstance(document, str) else json.dumps(document))


def flannel(tree: Tree, text: str) -> None:
    tree.put("run/flannel/subnet.env", text)
