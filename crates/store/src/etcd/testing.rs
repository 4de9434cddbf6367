//! An etcd of a test's own: Debian's `etcd-server`, with its own data directory.

use super::{EtcdStore, Options};
use crate::Error;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A member of a cluster of one. It ends with this value.
pub struct Etcd {
    directory: TempDir,
    ports: [u16; 2],
    child: Option<Child>,
    extra: Vec<String>,
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Etcd {
    /// Starts one. It may take a moment until it answers; clients wait for that.
    ///
    /// # Panics
    /// When there is no `etcd` (`make setup` installs it).
    pub fn start() -> Etcd {
        Etcd::with(&[])
    }

    /// Starts one with more flags.
    pub fn with(extra: &[&str]) -> Etcd {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ports = [free_port().expect("a port"), free_port().expect("a port")];
        let extra = extra.iter().map(ToString::to_string).collect();
        let mut etcd = Etcd { directory, ports, child: None, extra };
        etcd.restart();
        etcd
    }

    pub fn url(&self) -> String {
        let scheme = if self.extra.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.ports[0])
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it if it lives, and starts it with the data it had.
    pub fn restart(&mut self) {
        self.kill();
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", self.ports[1]));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.directory.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // Elects itself at once.
            .args(["--heartbeat-interval", "10", "--election-timeout", "100", "--log-level", "error"])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("etcd can be started: `make setup` installs it"));
    }

    /// A store in it.
    pub async fn store(&self) -> Result<EtcdStore, Error> {
        EtcdStore::connect(Options { servers: vec![self.url()], ..Options::default() }).await
    }

    /// Deletes all keys, as another client of etcd would.
    pub async fn wipe(&self) -> Result<(), Error> {
        let client = super::Client::new(&[self.url()], super::Tls::default())?;
        let everything = super::wire::Writer::default().bytes(1, b"\0").bytes(2, b"\0");
        client.delete(everything).await.map_err(|fault| Error::Unavailable(fault.to_string().into()))
    }

    /// Puts a value, as another client of etcd would.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let client = super::Client::new(&[self.url()], super::Tls::default())?;
        let put = super::Operation::Put { key, value, lease: 0 };
        let done = client.txn(None, &put, None).await;
        done.map(drop).map_err(|fault| Error::Unavailable(fault.to_string().into()))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
