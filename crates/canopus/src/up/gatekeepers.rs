//! Authentication, authorization and admission, over the server's own caches; and the files they come from, which may change.

use super::audit::destination;
use super::authorizers::Authorizers;
use super::issuers::Issuers;
use crate::cli::UpArgs;
use crate::cli::auth::AuthArgs;
use anyhow::{Context, Result, anyhow};
use canopus_apiserver::authn::bootstrap_tokens::BootstrapTokens;
use canopus_apiserver::authn::certificates::{Authority, ClientCertificates};
use canopus_apiserver::authn::jwt::{PublicKey, SigningKey};
use canopus_apiserver::authn::legacy_tokens::{self, LegacyTokens};
use canopus_apiserver::authn::request_header::{Headers, RequestHeader};
use canopus_apiserver::authn::tokens::{BoundObjects, ServiceAccountTokens};
use canopus_apiserver::authn::webhook::TokenWebhook;
use canopus_apiserver::authn::{Authenticator, TokenAuthenticator, token_file, trust};
use canopus_apiserver::authz::rbac::Rbac;
use canopus_apiserver::csr::{self, Requested};
use canopus_apiserver::node_proxy::NodeProxy;
use canopus_apiserver::pki::{self, Identity, Pki};
use canopus_apiserver::server::Gates;
use canopus_apiserver::surroundings::{Surroundings, System};
use canopus_apiserver::tls::{self, Serving};
use canopus_apiserver::{Server, admission, reload};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often our own certificates are looked at: they are renewed months before they run out.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// What may change while the server runs.
pub struct Fronts {
    args: UpArgs,
    address: IpAddr,
    service: Ipv4Addr,
    serving: Arc<Serving>,
    clients: Arc<Authority>,
    proxies: Arc<RequestHeader>,
    issuers: Issuers,
    authorizers: Arc<Authorizers>,
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// The cluster's own authority and those of a file.
fn bundle(own: &str, file: Option<&PathBuf>) -> Result<String> {
    match file {
        Some(path) => Ok(format!("{}\n{}\n", own.trim_end(), read(path)?.trim_end())),
        None => Ok(own.into()),
    }
}

fn serving_identity(pki: &Pki, args: &UpArgs, address: IpAddr, service: Ipv4Addr) -> Result<Identity> {
    if let (Some(certificate), Some(key)) = (&args.auth.tls_cert_file, &args.auth.tls_private_key_file) {
        return Ok(Identity { certificate_pem: read(certificate)?, key_pem: read(key)? });
    }
    let mut names = vec![format!("kubernetes.default.svc.{}", args.cluster_domain)];
    let mut addresses = vec![address, IpAddr::V4(service)];
    for extra in &args.tls_san {
        match extra.parse() {
            Ok(ip) => addresses.push(ip),
            Err(_) => names.push(extra.clone()),
        }
    }
    Ok(pki.api_server(&names, &addresses)?)
}

/// Lets the server in on who is who and who may do what.
pub fn setup(server: &Arc<Server>, pki: &Pki, args: &UpArgs, address: IpAddr) -> Result<Fronts> {
    let auth = &args.auth;
    let failed = |e: canopus_api::Status| anyhow!("failed to set up authorization: {e}");
    let clock = || Arc::new(System) as Arc<dyn Surroundings>;
    let authority = |pem: String, what: &str| {
        Authority::new(&pem).map_err(|e| anyhow!("failed to understand the authorities of {what}: {e}"))
    };
    let clients = authority(bundle(pki.ca_pem(), auth.client_ca_file.as_ref())?, "clients")?;
    let proxy_pki = Pki::open_front_proxy(&args.data.join("pki"), System.now())?;
    let proxies = authority(bundle(proxy_pki.ca_pem(), auth.requestheader_client_ca_file.as_ref())?, "proxies")?;
    let headers = Headers {
        allowed_names: auth.requestheader_allowed_names.clone(),
        username: auth.requestheader_username_headers.clone(),
        uid: auth.requestheader_uid_headers.clone(),
        group: auth.requestheader_group_headers.clone(),
        extra_prefix: auth.requestheader_extra_headers_prefix.clone(),
    };
    let proxies = Arc::new(RequestHeader::new(headers, clock(), proxies));
    let objects = BoundObjects::of(server).map_err(failed)?;
    let tokens = Arc::new(tokens(pki, args, SocketAddr::new(address, args.secure_port), objects.clone())?);
    let mut authenticators: Vec<Arc<dyn Authenticator>> = vec![
        proxies.clone(),
        Arc::new(ClientCertificates::new(clock(), clients.clone())),
        tokens.clone(),
        Arc::new(LegacyTokens {
            keys: tokens.keys(),
            audiences: canopus_apiserver::server::TokenIssuer::audiences(&*tokens).to_vec(),
            objects: objects.clone(),
        }),
    ];
    if let Some(path) = &auth.token_auth_file {
        // Upstream asks it before it asks service accounts.
        let known = token_file::parse(&read(path)?);
        let known = known.map_err(|e| anyhow!("failed to understand {}: {e}", path.display()))?;
        authenticators.insert(2, Arc::new(known));
    }
    if auth.enable_bootstrap_token_auth {
        authenticators.push(Arc::new(BootstrapTokens { secrets: objects.secrets, clock: clock() }));
    }
    let issuers = Issuers::read(auth)?;
    *server.anonymous.write() = Arc::new(issuers.anonymous.clone());
    let rbac = Rbac::of(server).map_err(failed)?;
    let (authorizers, union) = Authorizers::setup(server, &rbac, &args.authz)?;
    let kubelet_client = pki::client_config(pki.ca_pem(), Some(&pki.kubelet_client()?))?;
    server.gates.set(Gates {
        authenticators,
        token_authenticators: token_authenticators(auth, &issuers)?,
        authorizer: Arc::new(union),
        admission: Arc::new(admission::plugins::plugins(server, &rbac).map_err(failed)?),
        tokens,
        nodes: Arc::new(NodeProxy::new(Arc::new(kubelet_client))),
    });
    let service = server.service_ips.first();
    let serving = Serving::new(&serving_identity(pki, args, address, service)?)?;
    Ok(Fronts {
        args: args.clone(),
        address,
        service,
        serving,
        clients,
        proxies,
        issuers,
        authorizers: Arc::new(authorizers),
    })
}

/// Those who are asked about tokens last: issuers, then the webhook.
fn token_authenticators(auth: &AuthArgs, issuers: &Issuers) -> Result<Vec<Arc<dyn TokenAuthenticator>>> {
    let mut all = issuers.authenticators();
    if let Some(path) = &auth.authentication_token_webhook_config_file {
        let (version, ttl) = (&auth.authentication_token_webhook_version, auth.authentication_token_webhook_cache_ttl);
        all.push(Arc::new(TokenWebhook::new(destination(path)?, version, ttl)));
    }
    Ok(all)
}

/// The key that signs service-account tokens.
pub fn signing_key(pki: &Pki, args: &UpArgs) -> Result<SigningKey> {
    let pem = match &args.auth.service_account_signing_key_file {
        Some(path) => read(path)?,
        None => pki.service_account_key()?,
    };
    SigningKey::from_pem(&pem).context("failed to read the service-account signing key")
}

/// Signs what the tokens controller puts into Secrets.
pub fn legacy_signer(key: SigningKey) -> canopus_controllers::Signer {
    canopus_controllers::Signer::new(move |claims| {
        let mut claims = claims.clone();
        claims.set("iss", legacy_tokens::ISSUER);
        key.sign(&claims).map_err(|e| e.to_string())
    })
}

/// The cluster's authority, as controllers use it. It is opened for each certificate: that is rare, and it may have been renewed.
struct Authorities(PathBuf);

impl canopus_controllers::Certify for Authorities {
    fn read(&self, request: &[u8]) -> std::result::Result<canopus_controllers::Wish, String> {
        let asked = Requested::parse(request)?;
        Ok(canopus_controllers::Wish {
            common_name: asked.common_name,
            organizations: asked.organizations,
            dns_names: asked.dns_names,
            addresses: asked.addresses,
            emails: asked.emails,
            uris: asked.uris,
        })
    }

    fn sign(&self, request: &[u8], usages: &[&str], seconds: Option<i64>) -> std::result::Result<String, String> {
        let pki = Pki::open(&self.0, System.now()).map_err(|e| e.to_string())?;
        let asked = Requested::parse(request)?;
        let signed = pki.sign_request(&asked, usages, seconds, System.now(), System.random());
        signed.map_err(|e| e.to_string())
    }

    fn expired(&self, certificate: &[u8]) -> bool {
        csr::expired(certificate, System.now())
    }
}

pub fn certifier(args: &UpArgs) -> canopus_controllers::Certifier {
    canopus_controllers::Certifier(Arc::new(Authorities(args.data.join("pki"))))
}

fn tokens(pki: &Pki, args: &UpArgs, address: SocketAddr, objects: BoundObjects) -> Result<ServiceAccountTokens> {
    let auth = &args.auth;
    let issuer = auth.service_account_issuer.first().map(String::as_str).unwrap_or_default();
    let mut keys = Vec::new();
    for path in &auth.service_account_key_file {
        let found = PublicKey::all_from_pem(&read(path)?);
        keys.extend(found.with_context(|| format!("failed to understand {}", path.display()))?);
    }
    let key = signing_key(pki, args)?;
    let tokens = ServiceAccountTokens::new(issuer, auth.api_audiences.clone(), key, Arc::new(System), objects);
    let tokens = match &auth.service_account_jwks_uri {
        Some(url) if !url.starts_with("https://") => {
            anyhow::bail!("--service-account-jwks-uri requires https scheme, parsed as: {url}")
        }
        Some(url) => tokens.published_as(url),
        None => tokens.published_at(&address.to_string()),
    };
    Ok(tokens.accepting(&auth.service_account_issuer, keys))
}

impl Fronts {
    pub fn tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        Ok(tls::config(self.serving.clone())?)
    }

    /// Publishes whom extension servers should trust and follows the files, until `shutdown`.
    pub async fn run(self, server: &Arc<Server>, tasks: &TaskTracker, shutdown: &CancellationToken) -> Result<()> {
        let published = trust::publish(server, &self.clients, Some(&self.proxies)).await;
        published.map_err(|e| anyhow!("failed to publish how clients are recognized: {e}"))?;
        server.health.finish(&[trust::HOOK]);
        let auth = &self.args.auth;
        let files =
            [&auth.tls_cert_file, &auth.tls_private_key_file, &auth.client_ca_file, &auth.requestheader_client_ca_file];
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        self.issuers.follow(server, auth, tasks, shutdown);
        self.authorizers.follow(server, tasks, shutdown);
        let fronts = Arc::new(self);
        let (followed, publishing, handle) = (fronts.clone(), server.clone(), tasks.clone());
        tasks.spawn(reload::follow(files, shutdown.clone(), move || {
            followed.again(&publishing);
            let (fronts, server) = (followed.clone(), publishing.clone());
            handle.spawn(async move {
                if let Err(error) = trust::publish(&server, &fronts.clients, Some(&fronts.proxies)).await {
                    tracing::warn!(%error, "failed to publish how clients are recognized");
                }
            });
        }));
        let (server, shutdown) = (server.clone(), shutdown.clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(DAILY) => fronts.again(&server),
                    () = shutdown.cancelled() => return,
                }
            }
        });
        Ok(())
    }

    /// Reads everything again. What cannot be used changes nothing.
    fn again(&self, server: &Server) {
        if let Err(error) = self.renew(server) {
            tracing::error!(error = format!("{error:#}"), "failed to read certificates again; the old ones stay");
        }
    }

    fn renew(&self, server: &Server) -> Result<()> {
        let dir = self.args.data.join("pki");
        let pki = Pki::open(&dir, System.now())?;
        self.serving.replace(&serving_identity(&pki, &self.args, self.address, self.service)?)?;
        let replace = |authority: &Authority, own: &str, file: Option<&PathBuf>| {
            authority.replace(&bundle(own, file)?).map_err(anyhow::Error::msg)
        };
        replace(&self.clients, pki.ca_pem(), self.args.auth.client_ca_file.as_ref())?;
        let front = Pki::open_front_proxy(&dir, System.now())?;
        server.aggregator.identify(front.front_proxy_client()?);
        replace(self.proxies.authority(), front.ca_pem(), self.args.auth.requestheader_client_ca_file.as_ref())?;
        super::write_kubeconfig(&self.args, &pki)
    }
}
