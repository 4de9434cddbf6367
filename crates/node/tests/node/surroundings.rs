//! What a container finds around itself: environment, files, rights, names.

use canopus_api::{Value, value};

use crate::{World, shell};

/// Runs `script` in a pod with additions to its spec and container; what it printed.
async fn says(world: &World, name: &str, script: &str, container: Value, mut spec: Value) -> String {
    let mut c = shell(script);
    container.entries().for_each(|(k, v)| c.set(k.as_str(), v));
    spec.set("containers", vec![c]);
    spec.set("restartPolicy", "Never");
    world.create(name, spec).await;
    world.until(name, "over", |s| matches!(s["phase"].str(), "Succeeded" | "Failed")).await;
    let log = world.log(name, 0);
    let text: Vec<&str> = log.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).collect();
    world.delete(name).await;
    text.join("\n")
}

pub async fn environment(world: &World) {
    world
        .put("configmaps", value!({"kind": "ConfigMap", "metadata": {"name": "e"}, "data": {"A": "1", "B": "2"}}))
        .await;
    world.put("secrets", value!({"kind": "Secret", "metadata": {"name": "e"}, "data": {"S": "c2VjcmV0"}})).await;
    let service = value!({"kind": "Service", "metadata": {"name": "web-1"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}});
    world.put("services", service).await;
    let container = value!({
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "e"}}, {"secretRef": {"name": "e"}}, {"configMapRef": {"name": "no", "optional": true}}],
        "env": [
            {"name": "X", "value": "$(P_A)-$(S)-$(NO)-$$(S)"},
            {"name": "P_B", "value": "own"},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        "resources": {"limits": {"cpu": "250m", "memory": "32Mi"}},
    });
    let script = "echo $X $P_B $LABEL $IP $CPU $MEM $WEB_1_SERVICE_HOST:$WEB_1_SERVICE_PORT $WEB_1_PORT_80_TCP $HOME";
    let said = says(world, "env", script, container, value!({})).await;
    assert_eq!(said, "1-secret-$(NO)-$(S) own b 192.0.2.1 250 32 10.96.0.7:80 tcp://10.96.0.7:80 /root");
    let none = says(world, "nolinks", "env | grep -c WEB_1", value!({}), value!({"enableServiceLinks": false})).await;
    assert_eq!(none, "0");
}

/// What an environment needs may come later.
pub async fn missing_references(world: &World) {
    let mut container = shell("echo $K; exec sleep 100");
    container.set("env", value!([{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]));
    world.create("waits", value!({"containers": [container], "terminationGracePeriodSeconds": 1})).await;
    let waiting =
        |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"].str() == "CreateContainerConfigError";
    let pod = world.until("waits", "refused", waiting).await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].str(),
        "configmap \"late\" not found"
    );
    assert!(world.events("waits").await.contains(&("Failed".into(), "Error: configmap \"late\" not found".into())));
    world.put("configmaps", value!({"kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"k": "v"}})).await;
    world.until("waits", "running", |s| s["phase"].str() == "Running").await;
    world.delete("waits").await;
}

pub async fn volumes(world: &World) {
    let data = value!({"kind": "ConfigMap", "metadata": {"name": "v"}, "data": {"a": "1", "b": "2"}, "binaryData": {"bin": "AAE="}});
    world.put("configmaps", data).await;
    world.put("secrets", value!({"kind": "Secret", "metadata": {"name": "v"}, "data": {"key": "c2VjcmV0"}})).await;
    let host = world.dir.path().join("hostdir");
    let mounts = value!([
        {"name": "items", "mountPath": "/items"}, {"name": "secret", "mountPath": "/secret"}, {"name": "down", "mountPath": "/down"},
        {"name": "all", "mountPath": "/all", "readOnly": true}, {"name": "mem", "mountPath": "/mem"}, {"name": "disk", "mountPath": "/disk"},
        {"name": "disk", "mountPath": "/sub", "subPath": "x/y"}, {"name": "disk", "mountPath": "/expr", "subPathExpr": "$(NAME)"},
        {"name": "items", "mountPath": "/one/file", "subPath": "deep/a"}, {"name": "host", "mountPath": "/host", "readOnly": true},
    ]);
    let volumes = value!([
        {"name": "items", "configMap": {"name": "v", "defaultMode": 416, "items": [{"key": "a", "path": "deep/a"}, {"key": "b", "path": "b", "mode": 256}]}},
        {"name": "secret", "secret": {"secretName": "v"}},
        {"name": "down", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "requests.cpu", "divisor": "1m"}},
        ]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "v"}}, {"secret": {"name": "v"}}, {"configMap": {"name": "none", "optional": true}},
            {"serviceAccountToken": {"path": "token"}}, {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "disk", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": host.to_string_lossy().as_ref(), "type": "DirectoryOrCreate"}},
    ]);
    let container = value!({
        "volumeMounts": mounts, "resources": {"requests": {"cpu": "10m"}},
        "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    });
    let script = "cat /items/deep/a /one/file; stat -Lc %a /items/deep/a /items/b; ls /items; \
        grep -c 'tmpfs /secret ' /proc/mounts; cat /secret/key; echo; cat /down/labels; echo; cat /down/cpu; echo; \
        cd /all; cat a b key token name; echo; wc -c < bin; touch /all/x 2>/dev/null || echo refused; \
        dd if=/dev/zero of=/mem/f bs=1k count=2000 2>/dev/null; wc -c < /mem/f; touch /sub/1 /expr/2; find /disk -type f | sort; \
        touch /host/x 2>/dev/null || echo refused; stat -c %a /disk /mem";
    let said = says(world, "volumes", script, container, value!({"volumes": volumes})).await;
    let wanted = "11640\n400\nb\ndeep\n1\nsecret\na=\"b\"\n10\n12secreta-tokenvolumes\n2\nrefused\n1048576\n\
                  /disk/volumes/2\n/disk/x/y/1\nrefused\n777\n777";
    assert_eq!(said, wanted);
}

pub async fn missing_volumes(world: &World) {
    let mount = value!([{"name": "v", "mountPath": "/v"}]);
    let mut container = shell("exec sleep 100");
    container.set("volumeMounts", mount);
    let pod = |volume: Value| value!({"containers": [container.clone()], "volumes": [volume], "terminationGracePeriodSeconds": 1});
    world.create("nomap", pod(value!({"name": "v", "configMap": {"name": "nomap"}}))).await;
    world
        .create("nohost", pod(value!({"name": "v", "hostPath": {"path": "/etc/hostname", "type": "Directory"}})))
        .await;
    for (name, why) in [
        ("nomap", "configmap \"nomap\" not found"),
        ("nohost", "hostPath type check failed: /etc/hostname is not a directory"),
    ] {
        let wanted = ("FailedMount".to_owned(), format!("MountVolume.SetUp failed for volume \"v\" : {why}"));
        world.until_event(name, &wanted).await;
    }
    world.put("configmaps", value!({"kind": "ConfigMap", "metadata": {"name": "nomap"}, "data": {}})).await;
    world.until("nomap", "running", |s| s["phase"].str() == "Running").await;
    world.delete("nomap").await;
    world.delete("nohost").await;
}

pub async fn rights(world: &World) {
    let mounts = value!([{"name": "v", "mountPath": "/v"}, {"name": "t", "mountPath": "/t"}]);
    let spec = value!({
        "securityContext": {
            "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [4000], "runAsNonRoot": true,
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "7"}],
        },
        "volumes": [
            {"name": "v", "emptyDir": {}},
            {"name": "t", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
    });
    let container = value!({
        "volumeMounts": mounts,
        "securityContext": {
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    let script = "id -u; id -g; id -G; touch /v/f; stat -c %u:%g /v/f; stat -Lc %u:%g:%a /t/token; touch /x 2>/dev/null || echo ro; \
        grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let said = says(world, "rights", script, container, spec).await;
    let wanted = "1000\n3000\n3000 2000 4000\n1000:2000\n1000:2000:640\nro\n\
                  CapBnd:0000000000000400\nNoNewPrivs:1\nSeccomp:2\n7";
    assert_eq!(said, wanted);

    let profile =
        value!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "no-mkdir.json"}}});
    let dir = world.dir.path().join("node/seccomp");
    std::fs::create_dir_all(&dir).expect("directory");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    std::fs::write(dir.join("no-mkdir.json"), text).expect("profile");
    let said = says(world, "profile", "mkdir /x 2>/dev/null || echo refused", profile, value!({})).await;
    assert_eq!(said, "refused");

    let privileged = value!({"securityContext": {"privileged": true}});
    let said = says(
        world,
        "privileged",
        "test -e /dev/kmsg && mount -t tmpfs x /mnt 2>/dev/null || mount -t tmpfs x /tmp && echo mounted",
        privileged,
        value!({}),
    )
    .await;
    assert_eq!(said, "mounted");
}

pub async fn root_is_refused(world: &World) {
    let spec = value!({"securityContext": {"runAsNonRoot": true}, "containers": [shell("true")]});
    world.create("noroot", spec).await;
    let waiting = |s: &Value| !s["containerStatuses"][0]["state"]["waiting"]["message"].is_null();
    let pod = world.until("noroot", "refused", waiting).await;
    let wanted =
        "container has runAsNonRoot and image will run as root (pod: \"noroot_default(uid-noroot)\", container: c)";
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!((waiting["reason"].str(), waiting["message"].str()), ("CreateContainerConfigError", wanted));
    world.delete("noroot").await;
}

pub async fn names(world: &World) {
    let spec = value!({
        "hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": true, "shareProcessNamespace": true,
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["alias"]}],
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["s"], "options": [{"name": "ndots", "value": "2"}]},
    });
    let script = "hostname; grep -c alias /etc/hosts; grep -c 'h.sub.default.svc.cluster.local' /etc/hosts; cat /etc/resolv.conf; \
        test $$$$ -ne 1 && echo shared";
    let said = says(world, "names", script, value!({}), spec).await;
    assert_eq!(said, "h.sub.default.svc.cluster.local\n1\n1\nsearch s\nnameserver 9.9.9.9\noptions ndots:2\nshared");
    let host = value!({"hostNetwork": true, "hostPID": true, "hostIPC": true});
    let said = says(
        world,
        "host",
        "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; test $$$$ -ne 1 && echo shared",
        value!({}),
        host,
    )
    .await;
    let link = |kind: &str| {
        std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("namespace").display().to_string()
    };
    let own = nix::unistd::gethostname().expect("host name").to_string_lossy().into_owned();
    assert_eq!(said, format!("{own}\n{}\n{}\nshared", link("net"), link("ipc")));
}
