"""All packages of this environment, torch among them, for pods: a read-only volume that an administrator made.

The restricted Pod Security Standard forbids hostPath in pods, but not a claim on such a volume; 5 GB in an image would take minutes.
"""

import sysconfig

from tests.cluster import images, node
from tests.cluster.cluster import Cluster, Manifest

CLAIM = "site-packages"
PYTHONPATH = f"{images.SOURCE_PATH}:{images.SITE_PACKAGES}"


def provide_packages(cluster: Cluster) -> None:
    """Volume and claim in the cluster's namespace; the volume belongs to this claim alone."""
    volume_name = f"{CLAIM}-{cluster.namespace}"
    shared = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = shared | {
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": cluster.namespace, "name": CLAIM},
        "hostPath": {"path": sysconfig.get_path("purelib"), "type": "Directory"},
    }
    claim = shared | {"volumeName": volume_name, "resources": {"requests": {"storage": "1Gi"}}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume_name}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
    )


def overlay(container: str) -> Manifest:
    """Pod template overlay that mounts the packages into `container`. One thread: two that wait for each other on a busy machine crawl."""
    variables = {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    mounted = {
        "name": container,
        "imagePullPolicy": "Never",
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumeMounts": [{"name": CLAIM, "mountPath": images.SITE_PACKAGES, "readOnly": True}],
    }
    volumes = [{"name": CLAIM, "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}]
    return {"spec": {"containers": [mounted], "volumes": volumes, "nodeSelector": node.SELECTOR, "tolerations": [node.TOLERATION]}}
