//! What every component that talks to the API needs: shared local views ([`Informers`]), a work queue and the loop that
//! drains it ([`queue`], [`runner`]), Events ([`events`]), and the [`canopus_api::Api`] over HTTPS ([`remote`]).

pub mod events;
pub mod informer;
pub mod kubeconfig;
pub mod queue;
pub mod remote;
pub mod runner;

pub use events::Recorder;
pub use informer::{Change, Informer, Informers};
pub use queue::Queue;
pub use remote::RemoteApi;
pub use runner::{Outcome, Reconcile, run};

use canopus_api::Time;

/// The wall clock, for timestamps in objects.
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
