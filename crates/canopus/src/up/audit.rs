//! What is written down about requests, and how what is stored is encrypted: from files to the server.

use crate::cli::UpArgs;
use anyhow::{Context, Result, anyhow};
use canopus_apiserver::audit::log::{self, Log};
use canopus_apiserver::audit::policy::Policy;
use canopus_apiserver::audit::webhook::{self, Webhook};
use canopus_apiserver::audit::{Audit, Counts};
use canopus_apiserver::encryption::{EncryptedStore, Encryption};
use canopus_apiserver::metrics::reloads::server_id;
use canopus_apiserver::outgoing::{Destination, Trust};
use canopus_apiserver::pki::Identity;
use canopus_apiserver::surroundings::System;
use canopus_apiserver::traces::{self, Traces};
use canopus_apiserver::{Server, reload};
use canopus_client::kubeconfig;
use canopus_store::Store;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// The one whom a kubeconfig's current context leads to.
pub fn destination(path: &Path) -> Result<Destination> {
    let name = path.display();
    let config = kubeconfig::load(&path.to_string_lossy()).with_context(|| format!("failed to understand {name}"))?;
    let mut to = Destination::url(&config.server, Trust::bundle(&config.ca)).map_err(|e| anyhow!("{name}: {e}"))?;
    if !config.client_certificate.is_empty() {
        let text = |pem: Vec<u8>| String::from_utf8(pem).with_context(|| format!("{name}: not PEM"));
        let (certificate_pem, key_pem) = (text(config.client_certificate)?, text(config.client_key)?);
        to.identity = Some(Arc::new(Identity { certificate_pem, key_pem }));
    }
    to.authorization = config.token.map(|token| format!("Bearer {token}"));
    Ok(to)
}

/// Begins the audit log, if there is a policy.
pub fn setup(server: &Arc<Server>, args: &UpArgs, shutdown: &CancellationToken) -> Result<()> {
    let args = &args.audit;
    let Some(path) = &args.audit_policy_file else { return Ok(()) };
    let policy = Policy::parse(&read(path)?).map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?;
    let log = match &args.audit_log_path {
        Some(path) => {
            let options = log::Options {
                path: path.clone(),
                max_age: args.audit_log_maxage,
                max_backup: args.audit_log_maxbackup,
                max_size: args.audit_log_maxsize,
            };
            Some(Log::open(options).with_context(|| format!("failed to open {}", path.display()))?)
        }
        None => None,
    };
    let webhook = match &args.audit_webhook_config_file {
        Some(path) => {
            let options = webhook::Options {
                buffer: args.audit_webhook_batch_buffer_size,
                batch: args.audit_webhook_batch_max_size,
                wait: Duration::from_secs(args.audit_webhook_batch_max_wait),
                ..webhook::Options::default()
            };
            Some(Webhook::start(server, destination(path)?, options, shutdown.clone()))
        }
        None => None,
    };
    if log.is_none() && webhook.is_none() {
        return Ok(());
    }
    let audit = Audit { policy, log, webhook, clock: Arc::new(System), counts: Counts::default() };
    server.audit.set(Arc::new(audit)).map_err(|_| anyhow!("the audit log has been begun already"))
}

/// Begins to trace requests, if there is a configuration.
pub fn traces(server: &Arc<Server>, args: &UpArgs, shutdown: &CancellationToken) -> Result<()> {
    let Some(path) = &args.audit.tracing_config_file else { return Ok(()) };
    let configuration = traces::Configuration::parse(&read(path)?);
    let configuration = configuration.map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?;
    let instance = server_id().to_string();
    let traces = Traces::start(configuration, Arc::new(System), instance, shutdown.clone());
    server.traces.set(traces).map_err(|_| anyhow!("requests are traced already"))
}

/// The first pause before an encryption configuration is tried again that could not be used, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// The store behind what encrypts, if there is a configuration.
pub async fn encrypted(
    store: Arc<dyn Store>,
    args: &UpArgs,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(Arc<dyn Store>, Option<Arc<Encryption>>)> {
    let Some(path) = args.auth.encryption_provider_config.clone() else { return Ok((store, None)) };
    let reloads = args.auth.encryption_provider_config_automatic_reload;
    let encryption = Encryption::start(&read(&path)?, Arc::new(System), reloads).await;
    let encryption = encryption.map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?;
    let store = EncryptedStore::new(store, encryption.clone());
    if reloads {
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        tasks.spawn(reload::follow(vec![path.clone()], shutdown.clone(), move || notify.notify_one()));
        let (encryption, shutdown) = (encryption.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = reload_encryption(&encryption, &path, &changed) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    Ok((Arc::new(store), Some(encryption)))
}

/// Reads the file again when it changes; and once more, after a while, if that could not be used: a service that it names may
/// not be there yet.
async fn reload_encryption(encryption: &Encryption, path: &Path, changed: &Notify) {
    let mut again: Option<Duration> = None;
    loop {
        match again {
            None => changed.notified().await,
            Some(pause) => {
                let waited = tokio::time::timeout(pause, changed.notified()).await;
                again = waited.is_err().then_some(pause);
            }
        }
        let loaded = match read(path) {
            Ok(text) => encryption.reload(&text).await.map_err(|e| anyhow!("failed to use {}: {e}", path.display())),
            Err(error) => Err(error),
        };
        again = match loaded {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the old encryption configuration stays");
                Some(again.map_or(PAUSE, |pause| (pause * 2).min(LONG_PAUSE)))
            }
        };
    }
}
