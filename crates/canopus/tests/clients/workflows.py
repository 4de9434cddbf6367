"""What programs do with the Python client: typed and dynamic, lists and watches, streams, custom resources, errors."""

import sys

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

namespace, image = sys.argv[1:]
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def fails(code, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code and reason in error.body, error
        return
    raise AssertionError(f"{call} did not fail")


def config_maps():
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="typed", labels={"kind": "typed"}), data={"a": "1"})
    made = core.create_namespaced_config_map(namespace, body)
    fails(409, "AlreadyExists", core.create_namespaced_config_map, namespace, body)
    core.patch_namespaced_config_map("typed", namespace, {"data": {"b": "2"}})
    now = core.read_namespaced_config_map("typed", namespace)
    assert now.data == {"a": "1", "b": "2"} and now.metadata.uid == made.metadata.uid, now
    fails(409, "Conflict", core.replace_namespaced_config_map, "typed", namespace, made)
    for i in range(5):
        core.create_namespaced_config_map(namespace, {"metadata": {"generateName": "many-", "labels": {"n": str(i)}}})
    seen, page = [], None
    while page is None or page.metadata._continue:
        more = page.metadata._continue if page else None
        page = core.list_namespaced_config_map(namespace, label_selector="n", limit=2, _continue=more)
        seen += [item.metadata.labels["n"] for item in page.items]
    assert sorted(seen) == list("01234"), seen
    core.delete_collection_namespaced_config_map(namespace, label_selector="n notin (0)")
    left = core.list_namespaced_config_map(namespace, label_selector="n").items
    assert len(left) == 1, left
    fails(404, "NotFound", core.read_namespaced_config_map, "nope", namespace)
    fails(422, "Invalid", core.create_namespaced_config_map, namespace, {"metadata": {"name": "Not A Name"}})


def workloads():
    container = client.V1Container(
        name="main", image=image, command=["sh", "-c", "httpd -p 8080; echo started; trap exit TERM; sleep 1000 & wait"]
    )
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "py"}),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
    )
    spec = client.V1DeploymentSpec(replicas=1, selector={"matchLabels": {"app": "py"}}, template=template)
    body = client.V1Deployment(metadata=client.V1ObjectMeta(name="py"), spec=spec)
    apps.create_namespaced_deployment(namespace, body)
    for event in watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=60):
        if event["object"].status.available_replicas == 1:
            break
    else:
        raise AssertionError("the deployment is not available")
    pod = core.list_namespaced_pod(namespace, label_selector="app=py").items[0].metadata.name
    assert core.read_namespaced_pod_log(pod, namespace) == "started\n"
    said = stream(
        core.connect_get_namespaced_pod_exec, pod, namespace, command=["echo", "from inside"], stdout=True, stderr=True
    )
    assert said == "from inside\n", said
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports="8080")
    socket, answer = forwarded.socket(8080), b""
    socket.setblocking(True)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    while part := socket.recv(4096):
        answer += part
    assert b"404 Not Found" in answer and forwarded.error(8080) is None, (answer, forwarded.error(8080))
    scale = apps.patch_namespaced_deployment_scale("py", namespace, {"spec": {"replicas": 0}})
    # Upstream leaves out a zero.
    assert not scale.spec.replicas, scale
    apps.delete_namespaced_deployment("py", namespace, propagation_policy="Foreground")


def dynamically():
    api = dynamic.DynamicClient(client.ApiClient())
    secrets = api.resources.get(api_version="v1", kind="Secret")
    secrets.create(namespace=namespace, body={"metadata": {"name": "dynamic"}, "stringData": {"a": "b"}})
    assert secrets.get(name="dynamic", namespace=namespace).data.a == "Yg=="
    applied = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "dynamic"}, "stringData": {"c": "d"}}
    secrets.server_side_apply(body=applied, name="dynamic", namespace=namespace, field_manager="python")
    managers = [entry.manager for entry in secrets.get(name="dynamic", namespace=namespace).metadata.managedFields]
    assert "python" in managers, managers


def custom_resources():
    group = f"{namespace}.example.org"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    version["subresources"] = {"status": {}}
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    definition |= {"metadata": {"name": f"things.{group}"}}
    definition |= {"spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}}
    extensions, objects = client.ApiextensionsV1Api(), client.CustomObjectsApi()
    utils.create_from_dict(client.ApiClient(), definition)
    only = f"metadata.name=things.{group}"
    for event in watch.Watch().stream(extensions.list_custom_resource_definition, field_selector=only, timeout_seconds=30):
        if any(c.type == "Established" and c.status == "True" for c in event["object"].status.conditions or []):
            break
    else:
        raise AssertionError("the definition is not established")
    at = dict(group=group, version="v1", namespace=namespace, plural="things")
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"size": 1, "gone": True}}
    made = objects.create_namespaced_custom_object(**at, body=thing)
    assert made["spec"] == {"size": 1}, made
    fails(422, "Invalid", objects.patch_namespaced_custom_object, **at, name="t", body={"spec": {"size": "large"}})
    objects.patch_namespaced_custom_object_status(**at, name="t", body={"status": {}})
    assert [item["metadata"]["name"] for item in objects.list_namespaced_custom_object(**at)["items"]] == ["t"]
    extensions.delete_custom_resource_definition(f"things.{group}")


def leader_election():
    led = []

    def candidate(name):
        def lead():
            led.append(name)
            raise RuntimeError("who leads gives up")

        stopped = lambda: led.append(f"not {name}")
        times = dict(lease_duration=3, renew_deadline=2, retry_period=1)
        lock = LeaseLock("leader", namespace, name)
        settings = electionconfig.Config(lock, onstarted_leading=lead, onstopped_leading=stopped, **times)
        leaderelection.LeaderElection(settings).run()

    for name in ["ann", "bob"]:
        candidate(name)
    assert led == ["ann", "not ann", "bob", "not bob"], led


for workflow in [config_maps, dynamically, workloads, custom_resources, leader_election]:
    workflow()
    print(workflow.__name__, "done")
