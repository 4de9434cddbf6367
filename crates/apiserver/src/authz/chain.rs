//! Authorizers in the order in which they are asked (upstream `union`). Those in the process answer at once; only for one
//! that is asked over the network somebody has to wait.

use super::{Attributes, Authorizer, Decision, Rules};
use crate::metrics::authorization::Decisions;
use crate::server::Server;
use crate::user::User;
use async_trait::async_trait;
use std::sync::Arc;

/// A decision, and what went wrong on the way to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub decision: Decision,
    pub error: Option<String>,
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Verdict {
        Verdict { decision, error: None }
    }
}

/// An authorizer that is asked over the network. It cannot enumerate its rules.
#[async_trait]
pub trait RemoteAuthorizer: Send + Sync + 'static {
    async fn authorize(&self, server: &Server, attributes: &Attributes<'_>) -> Verdict;
}

pub enum Step {
    Local(Box<dyn Authorizer>),
    Remote(Arc<dyn RemoteAuthorizer>),
}

/// Counts what an authorizer decides.
pub struct Counted<A>(pub A, pub Arc<Decisions>);

impl<A> Counted<A> {
    fn count(&self, decision: &Decision) {
        match decision {
            Decision::Allow(_) => self.1.allowed(),
            Decision::Deny(_) => self.1.denied(),
            Decision::NoOpinion(_) => {}
        }
    }
}

impl<A: Authorizer> Authorizer for Counted<A> {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let decision = self.0.authorize(attributes);
        self.count(&decision);
        decision
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        self.0.rules(user, namespace)
    }
}

#[async_trait]
impl<A: RemoteAuthorizer> RemoteAuthorizer for Counted<A> {
    async fn authorize(&self, server: &Server, attributes: &Attributes<'_>) -> Verdict {
        let verdict = self.0.authorize(server, attributes).await;
        self.count(&verdict.decision);
        verdict
    }
}

/// Asks each in turn; without any opinion the answer is NoOpinion, which callers treat as no.
pub struct Union {
    steps: Vec<Step>,
    remote: bool,
}

impl<A: Authorizer> From<A> for Union {
    fn from(only: A) -> Union {
        Union::new(vec![Step::Local(Box::new(only))])
    }
}

impl Union {
    pub fn new(steps: Vec<Step>) -> Union {
        let remote = steps.iter().any(|step| matches!(step, Step::Remote(_)));
        Union { steps, remote }
    }

    /// Whether any answer may have to be waited for.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    pub async fn authorize(&self, server: &Server, attributes: &Attributes<'_>) -> Verdict {
        let mut undecided = Undecided::default();
        for step in &self.steps {
            let verdict = match step {
                Step::Local(local) => local.authorize(attributes).into(),
                Step::Remote(remote) => remote.authorize(server, attributes).await,
            };
            if let Some(decided) = undecided.add(verdict) {
                return decided;
            }
        }
        undecided.verdict()
    }

    /// The same without waiting. None: it takes one that is asked over the network.
    pub fn authorize_here(&self, attributes: &Attributes) -> Option<Verdict> {
        let mut undecided = Undecided::default();
        for step in &self.steps {
            let Step::Local(local) = step else { return None };
            if let Some(decided) = undecided.add(local.authorize(attributes).into()) {
                return Some(decided);
            }
        }
        Some(undecided.verdict())
    }

    /// The rules of all, for SelfSubjectRulesReview.
    pub fn rules(&self, user: &User, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for step in &self.steps {
            match step {
                Step::Local(local) => {
                    let rules = local.rules(user, namespace);
                    all.resource.extend(rules.resource);
                    all.non_resource.extend(rules.non_resource);
                    all.errors.extend(rules.errors);
                    all.incomplete |= rules.incomplete;
                }
                Step::Remote(_) => {
                    all.incomplete = true;
                    all.errors.push("webhook authorizer does not support user rule resolution".into());
                }
            }
        }
        all
    }
}

/// What those have said who had no opinion.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Undecided {
    fn add(&mut self, verdict: Verdict) -> Option<Verdict> {
        match verdict.decision {
            Decision::NoOpinion(reason) => {
                self.reasons.extend(Some(reason).filter(|r| !r.is_empty()));
                self.errors.extend(verdict.error);
                None
            }
            _ => Some(verdict),
        }
    }

    fn verdict(self) -> Verdict {
        Verdict { decision: Decision::NoOpinion(self.reasons.join("\n")), error: aggregate(&self.errors) }
    }
}

/// Several errors as upstream's `NewAggregate` shows them.
pub fn aggregate(errors: &[String]) -> Option<String> {
    match errors {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
