//! An issuer's keys: found by OpenID Connect Discovery 1.0, kept, and fetched again when a token is signed with another.

use crate::authn::jwt::PublicKey;
use crate::outgoing::{Destination, Failure, Outgoing, Trust};
use bytes::Bytes;
use canopus_api::{Value, json};
use http::{Request, Uri, header};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer documents are not an issuer's.
const MAX_LENGTH: usize = 1 << 20;
/// How many keys of one issuer are taken.
const MAX_KEYS: usize = 256;
/// An issuer that could not be found is not looked for again at once (upstream polls at this interval).
pub const RETRY: Duration = Duration::from_secs(10);
/// Tokens with unknown keys make the keys be fetched again so often at once, and then one time more each second: forged
/// tokens must not become an attack on the issuer.
const BURST: f64 = 10.0;

pub type Keys = Arc<[PublicKey]>;

pub struct RemoteKeys {
    issuer: String,
    discovery: String,
    trust: Trust,
    known: RwLock<Option<Keys>>,
    /// One asks at a time; the others wait for what it learns.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the keys are.
    address: Option<String>,
    failed: Option<(Instant, String)>,
    budget: Option<(Instant, f64)>,
}

impl State {
    fn may_ask(&mut self) -> bool {
        let now = Instant::now();
        let left = match self.budget {
            Some((then, left)) => (left + now.duration_since(then).as_secs_f64()).min(BURST),
            None => BURST,
        };
        let may = left >= 1.0;
        self.budget = Some((now, if may { left - 1.0 } else { left }));
        may
    }
}

impl RemoteKeys {
    pub fn new(issuer: &str, discovery: &str, trust: Trust) -> RemoteKeys {
        let discovery = match discovery {
            "" => format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')),
            url => url.into(),
        };
        RemoteKeys { issuer: issuer.into(), discovery, trust, known: RwLock::default(), state: Mutex::default() }
    }

    /// The keys as they were known last; the first time they are fetched.
    ///
    /// # Errors
    /// Why there are none yet.
    pub async fn get(&self, outgoing: &Outgoing) -> Result<Keys, String> {
        if let Some(known) = &*self.known.read() {
            return Ok(known.clone());
        }
        let mut state = self.state.lock().await;
        if let Some(known) = &*self.known.read() {
            return Ok(known.clone());
        }
        if let Some((_, why)) = state.failed.as_ref().filter(|(then, _)| then.elapsed() < RETRY) {
            return Err(why.clone());
        }
        let fetched = self.fetch(outgoing, &mut state).await;
        state.failed = fetched.as_ref().err().map(|why| (Instant::now(), why.clone()));
        if let Err(error) = &fetched {
            tracing::error!(issuer = self.issuer, error, "failed to learn the keys of an issuer of tokens");
        }
        fetched
    }

    /// Keys that differ from those `seen`, if there are any by now.
    pub async fn newer(&self, outgoing: &Outgoing, seen: &Keys) -> Option<Keys> {
        let mut state = self.state.lock().await;
        let known = self.known.read().clone();
        if let Some(known) = known.filter(|known| !Arc::ptr_eq(known, seen)) {
            return Some(known);
        }
        if !state.may_ask() {
            return None;
        }
        match self.fetch(outgoing, &mut state).await {
            Ok(keys) => Some(keys).filter(|keys| keys != seen),
            Err(error) => {
                tracing::warn!(issuer = self.issuer, error, "failed to fetch the keys of an issuer of tokens again");
                None
            }
        }
    }

    async fn fetch(&self, outgoing: &Outgoing, state: &mut State) -> Result<Keys, String> {
        let address = match &state.address {
            Some(address) => address.clone(),
            None => {
                let address = self.discover(outgoing).await?;
                state.address = Some(address.clone());
                address
            }
        };
        let document = self.document(outgoing, &address).await?;
        let keys: Keys = document["keys"].items().iter().filter_map(PublicKey::from_jwk).take(MAX_KEYS).collect();
        *self.known.write() = Some(keys.clone());
        Ok(keys)
    }

    /// Where the issuer has its keys.
    async fn discover(&self, outgoing: &Outgoing) -> Result<String, String> {
        let document = self.document(outgoing, &self.discovery).await?;
        let named = document["issuer"].str();
        if named != self.issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {named:?}",
                self.issuer
            ));
        }
        match document["jwks_uri"].str() {
            "" => Err("provider did not return JWKS URL".into()),
            address => Ok(address.into()),
        }
    }

    async fn document(&self, outgoing: &Outgoing, url: &str) -> Result<Value, String> {
        let document = get(outgoing, url, &self.trust, None).await?;
        json::parse(&document).map_err(|e| format!("{url}: {e}"))
    }
}

/// What is at an address, for who comes with this token.
pub async fn get(outgoing: &Outgoing, url: &str, trust: &Trust, token: Option<String>) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{url:?}: {e}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("{url:?} is not an https URL"));
    }
    let mut to = Destination::url(url, trust.clone())?;
    to.authorization = token.map(|token| format!("Bearer {token}"));
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(Bytes::new());
    let request = request.map_err(|e| e.to_string())?;
    let answer = outgoing.send(&to, request, PATIENCE).await.map_err(|e: Failure| e.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("{url}: {}", answer.status()));
    }
    if answer.body().len() > MAX_LENGTH {
        return Err(format!("{url}: the document is too long"));
    }
    Ok(answer.into_body())
}
