"""`make cluster-down`: stop what cluster-up started and remove its folder."""

import shutil

from tests.cluster import up
from tests.cluster.processes import Processes


def main() -> None:
    """Stop the cluster; nothing is left."""
    Processes(up.folder(), outlive=True).stop_all()
    shutil.rmtree(up.folder())
    print("the cluster is down")


if __name__ == "__main__":
    main()
