//! Authentication: who sent this request? (upstream `authenticator.Request`)

pub mod certificates;
pub mod jwt;
pub mod tokens;

use crate::user::User;
use std::sync::Arc;

/// What a connection and its headers say about the sender.
pub struct Credentials<'a> {
    /// The DER of the client certificate that TLS has verified against the client CA.
    pub client_certificate: Option<&'a [u8]>,
    pub authorization: Option<&'a str>,
}

pub trait Authenticator: Send + Sync + 'static {
    /// None: these credentials are not of my kind. Err: they are, and bad.
    fn authenticate(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Unauthenticated>;

    /// Checks a bearer token alone, for TokenReview. `audiences` empty means the API server's own.
    /// Answers the user and the audiences the token is good for.
    fn review(&self, _token: &str, _audiences: &[String]) -> Result<Option<Reviewed>, Unauthenticated> {
        Ok(None)
    }
}

/// A user, and the audiences the token is good for.
pub type Reviewed = (Arc<User>, Vec<String>);

/// The reason is for the log; the client learns only that it is not authenticated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unauthenticated(pub String);
