"""A Ray cluster on this machine, in a process of its own: Ray forks, which a process that has used JAX must not.

It has a node with one CPU. A line "add" of standard input adds a node with one CPU and one "second", and "bury" buries
those that were killed. It prints the address after each. At the end of standard input all nodes end.
"""

import os
import secrets
import sys

os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)  # Ray would write one into the home directory.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    print(cluster.address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    for line in sys.stdin:
        if line == "add\n":
            cluster.add_node(**NODE, resources={"second": 1})
        for node in [node for node in cluster.worker_nodes if not node.remaining_processes_alive()]:
            cluster.remove_node(node)
        print(cluster.address, flush=True)
    cluster.shutdown()
