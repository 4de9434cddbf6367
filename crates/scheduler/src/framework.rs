//! What a scheduler plugin is (KEP-624, upstream `kube-scheduler/framework`).
//!
//! A plugin looks at the pod once a cycle and answers with closures that look at one node each; what it prepares for
//! the cycle lives in them. [`crate::plugins::PLUGINS`] lists them all.

use crate::cache::Snapshot;
use crate::node::{Node, NodeInfo};
use crate::pod::Pod;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The highest score a node can get from one plugin, before weights.
pub const MAX_NODE_SCORE: i64 = 100;

/// Why a node won't do, in the words that the user reads.
pub type Reason = Cow<'static, str>;

/// What a filter says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// One reason or several.
    Rejected(Vec<Reason>),
}

impl Verdict {
    pub fn reject(reason: &'static str) -> Verdict {
        Verdict::Rejected(vec![Reason::Borrowed(reason)])
    }
}

pub type Check<'a> = Box<dyn Fn(&NodeInfo) -> Verdict + 'a>;

/// What a plugin's filter does for one pod.
pub enum Filter<'a> {
    /// Every node will do.
    Skip,
    /// No node will do.
    Reject(Reason),
    Check(Check<'a>),
    /// Only these nodes come into question, and they are to be checked too.
    Among(BTreeSet<&'a str>, Check<'a>),
}

/// How raw scores become scores from 0 to [`MAX_NODE_SCORE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// They already are.
    None,
    /// In proportion to the highest.
    Proportional,
    /// The same, with the highest becoming 0.
    Reversed,
}

/// What a plugin's score does for one pod.
pub struct Score<'a> {
    pub of: Box<dyn Fn(&NodeInfo) -> i64 + 'a>,
    pub normalize: Normalize,
}

/// Something happened that may let an unschedulable pod fit.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    NodeAdded(Arc<Node>),
    NodeChanged {
        old: Arc<Node>,
        new: Arc<Node>,
    },
    /// A pod left its node.
    PodRemoved(Arc<Pod>),
    /// The requests of a placed pod changed.
    PodResized(Arc<Pod>),
    /// The pending pod itself changed.
    PodChanged(Arc<Pod>),
}

pub trait Plugin: Send + Sync {
    /// Upstream's name: `NodeResourcesFit`.
    fn name(&self) -> &'static str;

    /// A reason to not even try the pod yet.
    fn pre_enqueue(&self, _pod: &Pod) -> Option<Reason> {
        None
    }

    fn filter<'a>(&self, _pod: &'a Pod) -> Filter<'a> {
        Filter::Skip
    }

    /// The weight of its score against the others'.
    fn weight(&self) -> i64 {
        1
    }

    /// None: it has no opinion about this pod.
    fn score<'a>(&self, _pod: &'a Pod, _nodes: &'a Snapshot) -> Option<Score<'a>> {
        None
    }

    /// Whether `event` may let `pod` fit, which this plugin rejected (KEP-4247). When in doubt, yes.
    fn hint(&self, _pod: &Pod, _event: &ClusterEvent) -> bool {
        true
    }
}

impl Normalize {
    pub fn apply(self, scores: &mut [i64]) {
        if self == Normalize::None {
            return;
        }
        let reversed = self == Normalize::Reversed;
        let highest = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = match (highest, reversed) {
                (0, true) => MAX_NODE_SCORE,
                (0, false) => *score,
                (_, true) => MAX_NODE_SCORE - MAX_NODE_SCORE * *score / highest,
                (_, false) => MAX_NODE_SCORE * *score / highest,
            };
        }
    }
}
