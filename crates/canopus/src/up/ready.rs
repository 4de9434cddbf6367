//! What is said when the cluster can be used.

use crate::cli::{DATA_DIR, UpArgs, VERSION};
use canopus_api::{Api, Gvr, Target, Value};
use std::fmt::Write;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(50);

/// Waits until the node is ready, tells the one who started this process, and says how to use the cluster.
pub async fn announce(api: Arc<dyn Api>, args: UpArgs, name: String, started: Instant) {
    let node = Target::new(&Gvr::new("", "v1", "nodes"), "", &name);
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].items();
        conditions.iter().any(|c| c["type"].str() == "Ready" && c["status"].str() == "True")
    };
    while !api.get(&node).await.is_ok_and(|node| ready(&node.value())) {
        tokio::time::sleep(LOOK).await;
    }
    notify();
    // Nobody needs to read it.
    let _ = crate::cli::say(&text(&args, &name, started.elapsed()));
}

fn text(args: &UpArgs, name: &str, took: Duration) -> String {
    let data = &args.data.data_dir;
    let kubeconfig = data.join("kubeconfig");
    let elsewhere =
        if data.as_os_str() == DATA_DIR { String::new() } else { format!(" --data-dir {}", data.display()) };
    let mut text = format!(
        "\ncanopus {VERSION} is ready after {:.1} s: node {name}, data in {}\n\n",
        took.as_secs_f64(),
        data.display()
    );
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "  export KUBECONFIG={}\n  kubectl get pods -A            or, without a kubectl: canopus kubectl get pods -A\n\n\
         Ctrl-C stops it; containers keep running, and the next `canopus up{elsewhere}` carries on with them.\n\
         `canopus reset{elsewhere}` removes everything.\n\n",
        kubeconfig.display()
    );
    text
}

/// Tells systemd, if it started this process, that it is up: sd_notify(3).
fn notify() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let socket = std::path::Path::new(&socket);
    let send = || -> std::io::Result<usize> {
        let us = UnixDatagram::unbound()?;
        match socket.to_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                us.send_to_addr(b"READY=1", &std::os::unix::net::SocketAddr::from_abstract_name(name)?)
            }
            None => us.send_to(b"READY=1", socket),
        }
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "failed to tell systemd that the cluster is up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::up_args;

    #[test]
    fn the_way_in_is_said() {
        let said = text(&up_args("--data-dir /srv/c"), "n", Duration::from_millis(1234));
        assert!(said.contains(" is ready after 1.2 s: node n, data in /srv/c\n"), "{said}");
        assert!(said.contains("  export KUBECONFIG=/srv/c/kubeconfig\n"), "{said}");
        assert!(said.contains("`canopus reset --data-dir /srv/c`"), "{said}");
        assert!(text(&up_args(""), "n", LOOK).contains("`canopus reset` removes"));
    }
}
