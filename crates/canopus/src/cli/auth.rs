//! Flags about who may do what, under upstream's names.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Whom the API server believes, beside the cluster's own certificates and tokens.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct AuthArgs {
    /// Serving certificate to use in place of the cluster's own; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Further authorities of client certificates; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Authorities of proxies that name users in headers, beside the cluster's own; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of proxies that may name users
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "front-proxy-client")]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the user's UID
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "X-Remote-Uid")]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    /// What headers with extra facts about the user begin with
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',', default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Whether requests without credentials are let through to authorization [default: true]
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Whose JSON Web Tokens are taken, and who may come anonymously (AuthenticationConfiguration); read again when it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// Who is asked about tokens that nobody else knows, as a kubeconfig (TokenReview)
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReview: v1 or v1beta1
    #[arg(long, value_name = "VERSION", default_value = "v1beta1", value_parser = VERSIONS)]
    pub authentication_token_webhook_version: String,
    /// How long its answers are kept
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Take tokens of Secrets of type bootstrap.kubernetes.io/token
    #[arg(long)]
    pub enable_bootstrap_token_auth: bool,
    /// Whom service-account tokens are issued by; tokens of the second and further are taken, too
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "https://kubernetes.default.svc.cluster.local"
    )]
    pub service_account_issuer: Vec<String>,
    /// Key that signs service-account tokens [default: the cluster's own]
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Further keys that service-account tokens are verified with
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub service_account_key_file: Vec<PathBuf>,
    /// Where the keys of service-account tokens are, as their configuration says [default: this server]
    #[arg(long, value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
    /// How long service-account tokens may be good for at most [default: as long as they ask for]
    #[arg(long, value_name = "DURATION", value_parser = hours)]
    pub service_account_max_token_expiration: Option<Duration>,
    /// Let tokens that pods are given be good for a year, for clients that do not read them again
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub service_account_extend_token_expiration: bool,
    /// Tokens and whom each is for: token,name,uid,"group,…" on each line
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// Whom tokens must be meant for [default: the first issuer]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// How what is in the store is encrypted (EncryptionConfiguration)
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Whether that file is read again when it changes
    #[arg(long, requires = "encryption_provider_config")]
    pub encryption_provider_config_automatic_reload: bool,
}

/// What a review's version may be.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Go's notation of durations.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    canopus_api::cron::duration(text).ok_or_else(|| "not a duration like 30s, 5m or 1h30m".into())
}

/// At least one.
fn hours(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|found| match found.as_secs() {
        3600..=4_294_967_296 => Ok(found),
        _ => Err("must be between 1 hour and 2^32 seconds".into()),
    })
}

fn duration_text(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.into())
}

/// Who decides what is authorized.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authorization")]
pub struct AuthzArgs {
    /// Who is asked, in this order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',', conflicts_with = "authorization_config")]
    pub authorization_mode: Vec<String>,
    /// Who is asked, in order, as a file (AuthorizationConfiguration); read again when it changes
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// What ABAC allows: a policy (abac.authorization.kubernetes.io/v1beta1) on each line
    #[arg(long, value_name = "FILE", conflicts_with = "authorization_config")]
    pub authorization_policy_file: Option<PathBuf>,
    /// Whom Webhook asks, as a kubeconfig (SubjectAccessReview)
    #[arg(long, value_name = "FILE", conflicts_with = "authorization_config")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReview: v1 or v1beta1
    #[arg(long, value_name = "VERSION", default_value = "v1beta1", value_parser = VERSIONS)]
    pub authorization_webhook_version: String,
    /// How long it is kept what the webhook allows
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration_text)]
    pub authorization_webhook_cache_authorized_ttl: String,
    /// How long it is kept what the webhook does not allow
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration_text)]
    pub authorization_webhook_cache_unauthorized_ttl: String,
}

/// One issuer of OpenID Connect tokens, without a file.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authentication")]
#[group(id = "oidc", multiple = true, conflicts_with = "authentication_config")]
pub struct OidcArgs {
    /// Whose OpenID Connect tokens are taken; an https URL
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// Whom those tokens must be meant for
    #[arg(long, value_name = "NAME", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// Authorities of the issuer's certificate [default: the host's]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim with the user's name [default: sub]
    #[arg(long, value_name = "NAME", requires = "oidc_issuer_url")]
    pub oidc_username_claim: Option<String>,
    /// What is put in front of users' names; `-` for nothing [default: the issuer and `#`, but nothing for the claim `email`]
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// The claim with the user's groups
    #[arg(long, value_name = "NAME", requires = "oidc_issuer_url")]
    pub oidc_groups_claim: Option<String>,
    /// What is put in front of groups' names
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    pub oidc_groups_prefix: Option<String>,
    /// What the tokens may be signed with [default: RS256]
    #[arg(long, value_name = "ALG,…", value_delimiter = ',', requires = "oidc_issuer_url")]
    pub oidc_signing_algs: Vec<String>,
    /// A claim that must have this value; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", requires = "oidc_issuer_url")]
    pub oidc_required_claim: Vec<String>,
}

/// What is written down about requests.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Audit")]
pub struct AuditArgs {
    /// What is recorded about which requests (Policy of audit.k8s.io/v1); without it, nothing
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where the audit log goes; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0: for ever
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// How many old audit logs are kept; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Megabytes from which on a new audit log is begun; 0: never
    #[arg(long, value_name = "MB", default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// Whom audit events are sent to, as a kubeconfig
    #[arg(long, value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Which requests are traced, and which OpenTelemetry collector is told (TracingConfiguration); without it, none
    #[arg(long, value_name = "FILE", help_heading = "Tracing")]
    pub tracing_config_file: Option<PathBuf>,
    /// How many audit events wait to be sent at most
    #[arg(long, value_name = "N", default_value_t = 10000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// How many audit events are sent at once at most
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// Seconds that an audit event waits for others at most
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub audit_webhook_batch_max_wait: u64,
}
