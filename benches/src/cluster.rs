//! One `canopus up` on a host of its own, seen by a load generator outside that host.

use crate::{Connection, progress};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use canopus_client::kubeconfig;
use canopus_testkit::Cluster;
use http::{Method, StatusCode};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The name that testkit gives the cluster's only node.
pub const NODE: &str = "node-1";
/// The image that [`Bench::import_image`] imports.
pub const IMAGE: &str = "canopus-bench:1";
const PORT: u16 = 6443;
const PATIENCE: Duration = Duration::from_secs(60);

/// Stopped, reset and removed when dropped.
pub struct Bench {
    cluster: Cluster,
}

/// The binary to measure: `CANOPUS_BINARY`, or the one that was built beside this benchmark.
fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CANOPUS_BINARY") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let path = own.parent().and_then(|deps| deps.parent()).context("where benchmarks are built")?.join("canopus");
    if !path.exists() {
        bail!("{} is missing: run the benchmarks by `make bench`", path.display());
    }
    Ok(path)
}

impl Bench {
    /// A host and a data directory; nothing runs there yet.
    pub fn new() -> Result<Bench> {
        Ok(Bench { cluster: Cluster::new(&binary()?) })
    }

    /// The same, with these arguments for `canopus up`.
    pub fn with(arguments: &[&str]) -> Result<Bench> {
        let mut bench = Bench::new()?;
        bench.cluster.arguments = arguments.iter().map(|a| (*a).to_string()).collect();
        Ok(bench)
    }

    /// The same with the server running and ready.
    pub async fn started() -> Result<Bench> {
        let mut bench = Bench::new()?;
        bench.launch();
        let mut api = bench.ready().await?;
        bench.usable(&mut api).await?;
        progress!("the cluster is up");
        Ok(bench)
    }

    pub fn import_image(&self) {
        self.cluster.import_busybox(IMAGE);
    }

    /// Starts the server and does not wait.
    pub fn launch(&mut self) {
        self.cluster.launch();
    }

    pub fn stop(&mut self) {
        self.cluster.stop();
    }

    pub fn data_dir(&self) -> PathBuf {
        self.cluster.data_dir()
    }

    /// The server's process.
    pub fn pid(&self) -> Result<u32> {
        self.cluster.pid().context("the server does not run")
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        self.cluster.log_tail()
    }

    /// The administrator's credentials.
    pub fn kubeconfig(&self) -> Result<kubeconfig::Config> {
        Ok(kubeconfig::load(&self.data_dir().join("kubeconfig").to_string_lossy())?)
    }

    /// `https://…`, from outside the host.
    pub fn url(&self) -> String {
        format!("https://{}:{PORT}", self.cluster.host().ip())
    }

    /// A new connection, as the cluster's administrator.
    pub async fn connect(&self) -> Result<Connection> {
        let ip: IpAddr = self.cluster.host().ip().parse()?;
        Connection::open(&self.kubeconfig()?, ip, PORT).await
    }

    /// Waits until `/readyz` says ok, asking every few milliseconds.
    pub async fn ready(&self) -> Result<Connection> {
        let began = Instant::now();
        loop {
            if let Ok(mut api) = self.connect().await
                && api.get("/readyz").await.is_ok()
            {
                return Ok(api);
            }
            if began.elapsed() > PATIENCE {
                bail!("not ready after {PATIENCE:?}\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until pods can be created: their service account is there, and the node is ready.
    pub async fn usable(&self, api: &mut Connection) -> Result<()> {
        let began = Instant::now();
        loop {
            let account = api.get("/api/v1/namespaces/default/serviceaccounts/default").await;
            let node = api.get(&format!("/api/v1/nodes/{NODE}")).await.unwrap_or_default();
            let node = canopus_api::json::parse(&node).unwrap_or_default();
            let mut conditions = node["status"]["conditions"].items().iter();
            if account.is_ok() && conditions.any(|c| c["type"].str() == "Ready" && c["status"].str() == "True") {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("the node is not ready after {PATIENCE:?}\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates a namespace and waits until pods can be created in it.
    pub async fn namespace(&self, api: &mut Connection, name: &str) -> Result<()> {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
        api.call(Method::POST, "/api/v1/namespaces", Bytes::from(body)).await?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        while api.exchange(Method::GET, &account, Bytes::new()).await?.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
