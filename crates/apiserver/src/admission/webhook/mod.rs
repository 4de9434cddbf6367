//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: somebody else is asked about a request (upstream
//! `plugin/webhook`). Configurations are compiled when they change; without any the plugins cost a look at a number.

pub mod metrics;
pub mod mutating;
pub mod review;
#[cfg(test)]
mod tests;
pub mod validating;

pub use mutating::MutatingWebhooks;
pub use validating::ValidatingWebhooks;

use super::Request;
use super::fresh::Fresh;
use super::matching::{Matcher, Version, exempt};
use super::policy::conditions::Conditions;
use super::policy::scope::{Asks, Inputs};
use crate::authz::changes::Changes;
use crate::notes;
use crate::outgoing::{Destination, Failure};
use crate::server::Server;
use crate::surroundings::uuid;
use canopus_api::{Object, Status, Value, View};
use metrics::Metrics;
use parking_lot::RwLock;
use review::Verdict;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// One webhook of a configuration.
pub(super) struct Hook {
    /// Configuration, name and place: what reinvocation goes by.
    pub id: String,
    pub configuration: String,
    pub name: String,
    matcher: Matcher,
    conditions: Conditions,
    to: Result<Destination, String>,
    /// The version of AdmissionReview that both sides know.
    review: Option<&'static str>,
    /// `failurePolicy: Ignore`.
    pub ignore: bool,
    side_effects: Option<String>,
    patience: Duration,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvoke: bool,
}

impl Hook {
    fn all_of(configuration: &Object) -> Vec<Hook> {
        let tree = configuration.value();
        let hooks = tree["webhooks"].items().iter().enumerate();
        hooks.map(|(i, hook)| Hook::of(configuration.name(), i, hook)).collect()
    }

    fn of(configuration: &str, place: usize, hook: &Value) -> Hook {
        let name = hook["name"].str();
        let mut versions = hook["admissionReviewVersions"].items().iter().map(Value::str);
        let seconds = hook["timeoutSeconds"].as_i64().unwrap_or(10).clamp(1, 30);
        Hook {
            id: format!("{configuration}/{name}/{place}"),
            configuration: configuration.into(),
            name: name.into(),
            matcher: Matcher::of_webhook(hook),
            conditions: Conditions::of(&hook["matchConditions"], false),
            to: Destination::of_client_config(&hook["clientConfig"]),
            review: versions.find_map(|v| ["v1", "v1beta1"].into_iter().find(|known| *known == v)),
            ignore: hook["failurePolicy"].str() == "Ignore",
            side_effects: hook["sideEffects"].as_str().map(String::from),
            patience: Duration::from_secs(seconds.unsigned_abs()),
            reinvoke: hook["reinvocationPolicy"].str() == "IfNeeded",
        }
    }
}

/// Why a webhook did not let a request pass.
pub(super) enum Trouble {
    /// It could not be asked, or its answer makes no sense: its failure policy decides.
    Calling { why: String, code: u16 },
    /// It said no.
    Denied(Status),
    /// The request cannot be put to it at all.
    Impossible(Status),
}

/// What both plugins share.
pub(super) struct Webhooks {
    server: Weak<Server>,
    configurations: Arc<dyn Changes>,
    namespaces: Fresh,
    compiled: RwLock<Option<(u64, Arc<[Hook]>)>>,
    metrics: Arc<Metrics>,
    /// `admit` or `validating`, as metrics name them.
    step: &'static str,
}

impl Webhooks {
    fn new(server: &Arc<Server>, plural: &str, step: &'static str) -> Result<Webhooks, Status> {
        Ok(Webhooks {
            server: Arc::downgrade(server),
            configurations: server.cache("admissionregistration.k8s.io", "v1", plural)?,
            namespaces: Fresh::of(server, "", "v1", "namespaces")?,
            compiled: RwLock::default(),
            metrics: server.metrics.webhooks.clone(),
            step,
        })
    }

    /// All webhooks, in the order of their configurations' names.
    pub fn hooks(&self) -> Arc<[Hook]> {
        let changed = self.configurations.last_change();
        if let Some((known, hooks)) = &*self.compiled.read()
            && *known == changed
        {
            return hooks.clone();
        }
        let configurations = View::list(&*self.configurations, "");
        let hooks: Arc<[Hook]> = configurations.iter().flat_map(|c| Hook::all_of(c)).collect();
        *self.compiled.write() = Some((changed, hooks.clone()));
        hooks
    }

    /// Whether there is any webhook for such requests.
    pub fn wants(&self, request: &Request) -> bool {
        !self.hooks().is_empty() && !exempt(request)
    }

    pub fn server(&self) -> Result<Arc<Server>, Status> {
        self.server.upgrade().ok_or_else(|| Status::unavailable("the server is stopping"))
    }

    /// In which version this request is to be put to the webhook, if at all.
    pub async fn called(&self, hook: &Hook, request: &Request<'_>) -> Result<Option<Version>, Status> {
        let server = self.server()?;
        let version =
            hook.matcher.matches(request, &self.namespaces, || Version::equivalents(&server, request)).await?;
        let Some(version) = version else { return Ok(None) };
        if hook.conditions.is_empty() {
            return Ok(Some(version));
        }
        let inputs = Inputs::of(&server, request, &version, None).await?;
        let matches = hook.conditions.hold(&inputs.scope(&Asks { server: &server, user: request.user }, &[]));
        match matches {
            Ok(matches) => Ok(matches.then_some(version)),
            Err(_) if hook.ignore => Ok(None),
            Err(why) => Err(request.forbidden(&why)),
        }
    }

    /// Puts the request to the webhook; its warnings and annotations are noted.
    pub async fn ask(
        &self,
        hook: &Hook,
        version: &Version,
        request: &Request<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<Verdict, Trouble> {
        let calling = |why: String, code| Trouble::Calling { why, code };
        if request.dry_run {
            match hook.side_effects.as_deref() {
                None => return Err(calling("Webhook SideEffects is nil".into(), 400)),
                Some("None" | "NoneOnDryRun") => {}
                Some(_) => {
                    let why = format!("admission webhook {:?} does not support dry run", hook.name);
                    return Err(Trouble::Impossible(Status::bad_request(why)));
                }
            }
        }
        let server = self.server().map_err(Trouble::Impossible)?;
        let unknown =
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        let review = hook.review.ok_or_else(|| calling(unknown.into(), 400))?;
        let to = hook.to.as_ref().map_err(|why| calling(format!("could not get REST client: {why}"), 500))?;
        let uid = uuid(server.surroundings.random());
        let question = review::question(review, &uid, version, request, object, old);
        let answer = server.outgoing.post(to, &question, hook.patience).await.map_err(|failure| {
            let code = if let Failure::Refused(status) = &failure { status.code } else { 503 };
            calling(format!("failed to call webhook: {failure}"), code)
        })?;
        let verdict = review::verdict(&answer, review, &uid, self.step == mutating::STEP)
            .map_err(|why| calling(format!("received invalid webhook response: {why}"), 503))?;
        for (key, text) in &verdict.annotations {
            notes::annotate(&format!("{}/{key}", hook.name), text);
        }
        verdict.warnings.iter().for_each(|warning| notes::warn(warning));
        match verdict.refusal(&hook.name) {
            Some(status) => Err(Trouble::Denied(status)),
            None => Ok(verdict),
        }
    }

    /// Counts a call and lets the failure policy decide. Err: the request ends here.
    pub fn settle(
        &self,
        hook: &Hook,
        place: usize,
        round: u8,
        request: &Request,
        since: Instant,
        trouble: Option<Trouble>,
    ) -> Result<(), Status> {
        let count = |rejected: bool, code: u16, cause: &'static str| {
            self.metrics.called(
                &hook.name,
                self.step,
                request.operation.name(),
                rejected,
                code,
                cause,
                since.elapsed(),
            );
        };
        match trouble {
            None => {
                count(false, 200, "");
                Ok(())
            }
            Some(Trouble::Calling { why, code }) => {
                let why = format!("failed calling webhook {:?}: {why}", hook.name);
                if !hook.ignore {
                    count(true, code, metrics::CALLING);
                    return Err(Status::internal(why));
                }
                count(false, code, "");
                tracing::warn!(webhook = hook.name, %why, "failed calling webhook, failing open");
                self.metrics.failed_open(&hook.name, self.step);
                let prefix = if self.step == mutating::STEP { "mutation" } else { "validating" };
                let key = format!("failed-open.{prefix}.webhook.admission.k8s.io/round_{round}_index_{place}");
                notes::annotate(&key, &hook.name);
                Ok(())
            }
            Some(Trouble::Denied(status)) => {
                count(true, status.code, metrics::DENIED);
                Err(status)
            }
            Some(Trouble::Impossible(status)) => {
                count(true, 0, metrics::INTERNAL);
                Err(status)
            }
        }
    }
}
