//! `canopus up`: a control plane in one process. Builds everything, spawns it, waits, drains.

mod audit;
mod authorizers;
mod gatekeepers;
mod host;
mod identities;
mod issuers;
mod node;
mod preflight;
mod ready;
mod reset;

use crate::cli::UpArgs;
pub use reset::reset;

use anyhow::{Context, Result, anyhow};
use canopus_api::{Value, gates};
use canopus_apiserver::pki::Pki;
use canopus_apiserver::runtime_config::RuntimeConfig;
use canopus_apiserver::surroundings::{Surroundings, System};
use canopus_apiserver::{
    Server, Settings, admission, aggregator, authn::trust, bootstrap, compaction, http::serve, masters, service_ips,
};
use canopus_client::kubeconfig;
use canopus_store::Store;
use canopus_store::etcd::{self, EtcdStore};
use canopus_store::sqlite::{self, SqliteStore};
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long components get to finish at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
pub fn run(args: UpArgs) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log).context("failed to understand --log")?;
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_target(false);
    log.with_env_filter(filter).init();
    // One provider for every TLS connection of the process; a second call could only come from here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start threads")?;
    let done = runtime.block_on(cluster(args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn cluster(args: UpArgs) -> Result<()> {
    let started = Instant::now();
    host::require_root()?;
    // From here on a signal ends it in order.
    let mut signals = Signals::listen()?;
    let name = match &args.node_name {
        Some(name) => name.clone(),
        None => host::node_name()?,
    };
    let address = match args.node_ip {
        Some(ip) => ip,
        None => host::node_ip()?,
    };
    let data = &args.data.data_dir;
    let fresh = !data.exists();
    host::private_dir(data)?;
    let _lock = host::lock(data)?;
    if let Err(error) = preflight::check(&args, address) {
        if fresh {
            // A cluster that never was leaves no trace; what cannot be removed does no harm.
            let _ = std::fs::remove_dir_all(data);
        }
        return Err(error);
    }
    host::keep_cgroup_root(data, &args.cgroup_root)?;

    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (server, pki) = control_plane(&args, address, &tasks, &shutdown).await?;
    let signer = gatekeepers::legacy_signer(gatekeepers::signing_key(&pki, &args)?);
    let certifier = gatekeepers::certifier(&args);
    let managers = controllers(&server, &args, pki.ca_pem().into(), (signer, certifier), &shutdown);
    let (one, other, scheduler) = (server.clone(), server.clone(), scheduler(&server, &shutdown));
    tasks.spawn(async move { one.components.run("controller-manager", managers).await });
    tasks.spawn(async move { other.components.run("scheduler", scheduler).await });
    let agent = node::start(&server, &pki, &args, &name, address, &tasks, &shutdown)?;
    let mut agent = tokio::spawn(agent);
    let announcement = tokio::spawn(ready::announce(identities::setup(&server), args, name, started));
    let ended = tokio::select! {
        () = signals.next() => {
            tracing::info!("stopping; containers keep running");
            Ok(())
        }
        failed = &mut agent => Err(match failed {
            Ok(Err(error)) => anyhow!("the node agent failed: {error}"),
            Ok(Ok(())) => anyhow!("the node agent ended"),
            Err(error) => anyhow!("the node agent broke: {error}"),
        }),
    };
    announcement.abort();
    shutdown.cancel();
    tasks.close();
    let drained = async {
        tasks.wait().await;
        if ended.is_ok() {
            // It was told to end: how it did changes nothing.
            let _ = agent.await;
        }
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("some components did not stop in time"),
        () = signals.next() => tracing::warn!("stopping at once"),
    }
    ended
}

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Signals(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// Starts the store and the API server. When this returns, the API answers and a kubeconfig is written.
/// Answers the server and its certificate authority.
async fn control_plane(
    args: &UpArgs,
    address: IpAddr,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(Arc<Server>, Pki)> {
    let data = &args.data;
    let store = store(args).await.context("failed to open the store")?;
    let (store, encryption) = audit::encrypted(store, args, tasks, shutdown).await?;
    let server = Server::start(store, Arc::new(System), settings(args)?).await;
    let server = server.map_err(|e| anyhow!("failed to start the API server: {e}"))?;

    if let Some(encryption) = encryption {
        server.encryption.set(encryption).map_err(|_| anyhow!("the store is encrypted already"))?;
    }

    let pki = Pki::open(&data.join("pki"), System.now()).context("failed to open the certificate authority")?;
    let listener = TcpListener::bind(SocketAddr::new(args.bind_address, args.secure_port)).await;
    let listener =
        listener.with_context(|| format!("failed to listen on {}:{}", args.bind_address, args.secure_port))?;
    audit::setup(&server, args, shutdown)?;
    audit::traces(&server, args, shutdown)?;
    server.health.expect(aggregator::HOOKS);
    server.health.expect(&[trust::HOOK]);
    let fronts = gatekeepers::setup(&server, &pki, args, address)?;
    tasks.spawn(serve::serve(server.clone(), listener, fronts.tls()?, shutdown.clone()));
    bootstrap::run(&server, address, args.secure_port)
        .await
        .map_err(|e| anyhow!("failed to set up the cluster: {e}"))?;
    aggregation(&server, &data.join("pki"), tasks, shutdown)?;
    fronts.run(&server, tasks, shutdown).await?;
    tasks.spawn(compaction::run(server.clone(), shutdown.clone()));
    tasks.spawn(service_ips::run(server.clone(), shutdown.clone()));
    tasks.spawn(masters::run(server.clone(), address, args.secure_port, shutdown.clone()));

    write_kubeconfig(args, &pki)?;
    tracing::info!(port = args.secure_port, kubeconfig = %data.join("kubeconfig").display(), "the API server is ready");
    Ok((server, pki))
}

/// The administrator's kubeconfig.
fn write_kubeconfig(args: &UpArgs, pki: &Pki) -> Result<()> {
    let admin = pki.admin()?;
    let local = if args.bind_address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { args.bind_address };
    let config = kubeconfig::Config {
        server: format!("https://{}", SocketAddr::new(local, args.secure_port)),
        ca: pki.ca_pem().into(),
        client_certificate: admin.certificate_pem.into(),
        client_key: admin.key_pem.into(),
        ..kubeconfig::Config::default()
    };
    let path = args.data.join("kubeconfig");
    host::private_file(&path, config.to_yaml("canopus", "kubernetes-admin").as_bytes(), 0o600)
}

async fn store(args: &UpArgs) -> Result<Arc<dyn Store>> {
    let etcd = &args.etcd;
    if etcd.etcd_servers.is_empty() {
        let path = args.data.join("store.db");
        let store = tokio::task::spawn_blocking(move || SqliteStore::open(path, sqlite::Options::default())).await?;
        return Ok(Arc::new(store?));
    }
    let tls = etcd::Tls {
        ca_file: etcd.etcd_cafile.clone(),
        certificate_file: etcd.etcd_certfile.clone(),
        key_file: etcd.etcd_keyfile.clone(),
    };
    let servers = etcd.etcd_servers.clone();
    let options = etcd::Options { servers, prefix: etcd.etcd_prefix.clone(), tls, ..etcd::Options::default() };
    Ok(Arc::new(EtcdStore::connect(options).await?))
}

/// Extension API servers: what they know us by, and who looks after them.
fn aggregation(server: &Arc<Server>, dir: &Path, tasks: &TaskTracker, shutdown: &CancellationToken) -> Result<()> {
    let front_proxy = Pki::open_front_proxy(dir, System.now()).context("failed to open the front-proxy authority")?;
    server.aggregator.identify(front_proxy.front_proxy_client()?);
    tasks.spawn(aggregator::run(server.clone(), shutdown.clone()));
    Ok(())
}

fn settings(args: &UpArgs) -> Result<Settings> {
    let features =
        gates::Gates::parse(&args.feature_gates.join(",")).context("failed to understand --feature-gates")?;
    let runtime_config = RuntimeConfig::parse(args.runtime_config.iter().map(String::as_str))
        .context("failed to understand --runtime-config")?;
    let pod_security = match &args.admission_control_config_file {
        Some(path) => pod_security(path).context("failed to understand --admission-control-config-file")?,
        None => Default::default(),
    };
    Ok(Settings {
        service_cidr: args.service_cluster_ip_range.clone(),
        features,
        runtime_config,
        request_timeout: Duration::from_secs(args.request_timeout),
        max_token_expiration: args.auth.service_account_max_token_expiration,
        extend_token_expiration: args.auth.service_account_extend_token_expiration,
        min_request_timeout: Duration::from_secs(args.min_request_timeout),
        priority_and_fairness: args.enable_priority_and_fairness,
        max_requests_inflight: args.max_requests_inflight,
        max_mutating_requests_inflight: args.max_mutating_requests_inflight,
        pod_security,
        node_ports: args.service_node_port_range,
        flags: args.flags.clone(),
    })
}

fn pod_security(path: &Path) -> Result<admission::pod_security::Configuration> {
    let read = |path: &Path| -> Result<Value> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let document = canopus_api::yaml::parse(&text).map_err(|e| anyhow!("{}: {e}", path.display()))?;
        Ok(document.value)
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let beside = |name: &str| read(&dir.join(name)).map_err(|e| format!("{e:#}"));
    Ok(admission::config::pod_security(&read(path)?, beside)?)
}

/// Every controller, each under its own service account.
fn controllers(
    server: &Arc<Server>,
    args: &UpArgs,
    root_ca: String,
    (token_signer, certifier): (canopus_controllers::Signer, canopus_controllers::Certifier),
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let table = server.catalog.table();
    let stored = table.stored().into_iter();
    let resources = stored.map(|s| canopus_controllers::ResourceInfo {
        gvr: s.info().gvr(),
        kind: s.info().kind.into(),
        namespaced: s.info().namespaced,
    });
    let config = canopus_controllers::Config {
        root_ca,
        token_signer: Some(token_signer),
        certifier: Some(certifier),
        resources: resources.collect(),
        cluster_cidr: args.cluster_cidr.clone(),
    };
    let accounts = server.clone();
    let account = move |name: &str| identities::controller(&accounts, name);
    canopus_controllers::run(config, identities::controller_manager(server), account, shutdown.clone())
}

fn scheduler(server: &Arc<Server>, shutdown: &CancellationToken) -> impl Future<Output = ()> + use<> {
    // Which of two equal nodes is chosen should differ from start to start.
    let seed = u64::try_from(System.now().0).unwrap_or_default();
    let config = canopus_scheduler::Config { seed, ..canopus_scheduler::Config::default() };
    canopus_scheduler::run(config, identities::scheduler(server), shutdown.clone())
}
