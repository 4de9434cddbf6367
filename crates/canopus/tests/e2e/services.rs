//! Services: addresses, names, readiness; and the way out.

use crate::space::Space;
use crate::{IMAGE, web};
use canopus_testkit::{Cluster, eventually};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

pub fn from_host_and_pods(c: &Cluster) {
    let s = Space::new(c, "services");
    s.apply(&web("web", 2, "v1"));
    s.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(s.k(&["expose", "deployment", "web", "--port=80", "--target-port=http"]), "service/web exposed\n");
    let ip = s.see("service web", "{.spec.clusterIP}");
    let fetch = || {
        let out = c.host().command("curl").args(["-s", "-m", "2", &format!("http://{ip}/index.html")]).output();
        let text = String::from_utf8_lossy(&out.expect("curl runs").stdout).into_owned();
        if text.starts_with("v1 web-") { Ok(text.trim().to_string()) } else { Err(format!("no answer: {text:?}")) }
    };
    eventually(Duration::from_secs(20), fetch);
    // Both pods answer.
    let mut names = std::collections::BTreeSet::new();
    eventually(Duration::from_secs(20), || {
        names.insert(fetch()?);
        if names.len() == 2 { Ok(()) } else { Err(format!("only {names:?} answered")) }
    });
    let pod = s.see("pods", "{.items[0].metadata.name}");
    for name in ["web", "web.services", "web.services.svc.cluster.local"] {
        s.inside(&pod, &format!("wget -q -O - http://{name}/index.html"), |text| text.starts_with("v1 web-"));
    }
    // A pod reaches itself through its Service too.
    s.k(&["scale", "deployment/web", "--replicas=1"]);
    s.wait_for("endpointslices -l kubernetes.io/service-name=web", "{.items[*].endpoints[*].conditions.ready}", "true");
    let left = s.living_pods().remove(0);
    s.inside(&left, "wget -q -O - http://web/index.html", |text| text.trim() == format!("v1 {left}"));

    // What is not ready is not asked; a Service without endpoints refuses.
    s.k(&["exec", &left, "--", "mv", "/tmp/w/index.html", "/tmp/w/hidden"]);
    s.wait_for(
        "endpointslices -l kubernetes.io/service-name=web",
        "{.items[*].endpoints[*].conditions.ready}",
        "false",
    );
    eventually(Duration::from_secs(20), || {
        let out = c.host().command("curl").args(["-s", "-m", "2", &format!("http://{ip}/")]).status();
        match out.expect("curl runs").code() {
            // Connection refused.
            Some(7) => Ok(()),
            other => Err(format!("curl ends with {other:?}")),
        }
    });
    s.k(&["exec", &left, "--", "mv", "/tmp/w/hidden", "/tmp/w/index.html"]);
    eventually(Duration::from_secs(20), fetch);
}

/// The `proxy` subresources, and what is not let through.
pub fn proxied(c: &Cluster) {
    let s = Space::new(c, "proxied");
    s.apply(&web("web", 1, "v1"));
    s.k(&["expose", "deployment", "web", "--port=80", "--target-port=http"]);
    s.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pod = s.see("pods -l app=web", "{.items[0].metadata.name}");
    let raw = |path: &str| s.kubectl(&["get", "--raw", path]);
    let base = "/api/v1/namespaces/proxied";
    s.wait_for("endpointslices -l kubernetes.io/service-name=web", "{.items[*].endpoints[*].conditions.ready}", "true");
    for path in [
        format!("{base}/pods/{pod}/proxy/index.html"),
        format!("{base}/pods/{pod}:8080/proxy/"),
        format!("{base}/pods/http:{pod}:8080/proxy/index.html?a=b"),
        format!("{base}/services/web/proxy/index.html"),
        format!("{base}/services/http:web:80/proxy/"),
    ] {
        let out = raw(&path);
        assert!(out.stdout == format!("v1 {pod}\n"), "{path}: {out:?}");
    }
    assert_eq!(raw("/api/v1/nodes/node-1/proxy/healthz").stdout, "ok");
    for (path, why) in [
        (format!("{base}/pods/{pod}:81/proxy/"), "connection refused"),
        (format!("{base}/services/web:81/proxy/"), r#"no service port 81 found for service "web""#),
        (format!("{base}/services/nope/proxy/"), r#"services "nope" not found"#),
    ] {
        let out = raw(&path);
        assert!(out.code != 0 && out.stderr.contains(why), "{path}: {out:?}");
    }
    // A port of the pod on this host, found through what leads to it too.
    for what in [format!("pod/{pod}"), "deployment/web".into(), "service/web".into()] {
        let port = if what.starts_with("service") { ":80" } else { ":8080" };
        let forwarded = s.stream(&["port-forward", &what, port]);
        forwarded.shows("Forwarding from 127.0.0.1:");
        let lines = forwarded.lines();
        let port = lines.iter().find_map(|l| l.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next());
        let url = format!("http://127.0.0.1:{}/index.html", port.expect("kubectl says the port"));
        for _ in 0..3 {
            let out = c.host().command("curl").args(["-s", "-m", "5", &url]).output().expect("curl runs");
            assert_eq!(String::from_utf8_lossy(&out.stdout), format!("v1 {pod}\n"), "{what}: {:?}", forwarded.lines());
        }
    }
    // Links lead through the proxy.
    s.k(&["exec", &pod, "--", "sh", "-c", "echo '<a href=\"/index.html\">x</a>' > /tmp/w/links.html"]);
    let page = raw(&format!("{base}/pods/{pod}:8080/proxy/links.html")).stdout;
    assert_eq!(page, format!("<a href=\"{base}/pods/{pod}:8080/proxy/index.html\">x</a>\n"));
}

const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: nodes}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
";

pub fn names(c: &Cluster) {
    let s = Space::new(c, "names");
    s.apply(HEADLESS);
    s.apply(&web("web", 2, "v1"));
    s.k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pod = s.see("pods", "{.items[0].metadata.name}");
    let addresses = s.see("pods", "{.items[*].status.podIP}");
    let addresses: Vec<&str> = addresses.split(' ').collect();
    s.inside(&pod, "nslookup -type=a nodes.names.svc.cluster.local", |text| addresses.iter().all(|a| text.contains(a)));
    let vip = s.see("service one", "{.spec.clusterIP}");
    let srv = |name: &str| {
        let name = format!("_http._tcp.{name}.names.svc.cluster.local");
        s.inside(&pod, &format!("nslookup -type=srv {name}"), |text| text.contains("service = "))
    };
    let one = srv("one");
    assert!(one.contains("80 one.names.svc.cluster.local"), "{one}");
    let nodes = srv("nodes");
    assert_eq!(nodes.matches("service = ").count(), 2, "{nodes}");
    assert!(nodes.contains("8080 ") && nodes.contains(".nodes.names.svc.cluster.local"), "{nodes}");
    let reverse = s.inside(&pod, &format!("nslookup {vip}"), |text| text.contains("name = "));
    assert!(reverse.contains("one.names.svc.cluster.local"), "{reverse}");
    let missing = s.kubectl(&["exec", &pod, "--", "nslookup", "nothing.names.svc.cluster.local"]);
    assert!(missing.code != 0 && missing.stdout.contains("NXDOMAIN"), "{missing:?}");
}

/// To the world outside, a pod is its node.
pub fn masquerade(c: &Cluster) {
    let s = Space::new(c, "outside");
    s.k(&["run", "p", &format!("--image={IMAGE}"), "--command", "--", "sleep", "3600"]);
    s.ready("p");
    let outside = TcpListener::bind((c.host().gateway(), 0)).expect("a port");
    let port = outside.local_addr().expect("an address").port();
    let peer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let (mut client, peer) = outside.accept().expect("a connection");
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
            peer.ip().to_string()
        });
        let url = format!("http://{}:{port}/", c.host().gateway());
        assert_eq!(s.k(&["exec", "p", "--", "wget", "-q", "-O", "-", &url]), "hello");
        answer.join().expect("an answer")
    });
    assert_eq!(peer, c.host().ip());
}
