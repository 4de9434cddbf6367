//! Authentication: who sent this request? (upstream `authenticator.Request`)

pub mod bootstrap_tokens;
pub mod certificates;
pub mod config;
mod front;
pub mod jwt;
pub mod legacy_tokens;
pub mod oidc;
pub mod request_header;
pub mod token_file;
pub mod tokens;
pub mod trust;
pub mod webhook;

pub(crate) use front::caught_up;
pub use front::{Anonymous, authenticate};

use crate::server::Server;
use crate::user::User;
use async_trait::async_trait;
use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// What a connection and its headers say about the sender.
pub struct Credentials<'a> {
    /// What the client has shown in the TLS handshake, its own certificate first: it has the key, but nobody has asked who vouches for it.
    pub certificates: &'a [CertificateDer<'static>],
    /// The bearer token.
    pub token: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

pub trait Authenticator: Send + Sync + 'static {
    /// None: these credentials are not of my kind. Err: they are, and bad.
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated>;

    /// Checks a bearer token alone, for TokenReview. `audiences` empty means the API server's own.
    /// Answers the user and the audiences the token is good for; no audiences means those of the API server.
    fn review(&self, _token: &str, _audiences: &[String]) -> Result<Option<Reviewed>, Unauthenticated> {
        Ok(None)
    }

    /// Whether a token is good but for an object that the server's caches don't have (yet): another server may have made it
    /// a moment ago. Asked only of tokens that were refused.
    fn misses(&self, _token: &str) -> bool {
        false
    }

    /// Removes what this authenticator reads from the headers, so that nobody behind takes it for the truth.
    fn strip(&self, _headers: &mut HeaderMap) {}
}

/// Knows bearer tokens of others, whom it may have to ask.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// None: nothing of mine. `audiences` are those whom the token is shown to; answers which of them it is good for.
    async fn check(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Reviewed>, Unauthenticated>;
}

/// A user, and the audiences the token is good for.
pub type Reviewed = (Arc<User>, Vec<String>);

/// The reason is for the log; the client learns only that it is not authenticated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unauthenticated(pub String);
