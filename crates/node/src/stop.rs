//! Ending one container.

use std::sync::Arc;
use std::time::Duration;

use canopus_runtime::Signalled;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::node::Node;

/// A killed container that hasn't ended after this long won't soon: the planner asks again.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Sends the container its stop signal, and SIGKILL to all of it when it hasn't ended within `grace`. Holds no thread
/// while it waits until somebody has seen that it `ended`.
pub(crate) async fn stop(node: &Arc<Node>, id: &str, grace: Duration, ended: &CancellationToken) -> Result<(), Error> {
    for (signal, all, wait) in [(None, false, grace), (Some(libc::SIGKILL), true, KILL_WAIT)] {
        let target = id.to_owned();
        match node.blocking(move |node| node.runtime.signal_container(&target, signal, all)).await?? {
            Signalled::Over => return Ok(()),
            Signalled::NotStarted => {}
            Signalled::Sent => {
                if tokio::time::timeout(wait, ended.cancelled()).await.is_ok() {
                    return Ok(());
                }
            }
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
}
