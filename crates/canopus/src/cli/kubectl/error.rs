//! Errors in kubectl's words.

use canopus_api::Status;

/// What kubectl would say about `error`.
pub fn message(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        None => format!("error: {error:#}"),
        Some(status) if status.reason == "Unauthorized" => {
            format!("error: You must be logged in to the server ({})", status.message)
        }
        // What the client says when there was no answer at all.
        Some(status) if refused(&status.message).is_some() => format!(
            "The connection to the server {} was refused - did you specify the right host or port? (Is `canopus up` running?)",
            refused(&status.message).unwrap_or_default()
        ),
        Some(status) if status.message.starts_with("failed to reach ") => {
            format!("Unable to connect to the server: {}", status.message)
        }
        Some(status) if status.reason.is_empty() => format!("Error from server: {}", status.message),
        Some(status) => format!("Error from server ({}): {}", status.reason, status.message),
    }
}

/// The server that nobody listens at.
fn refused(message: &str) -> Option<&str> {
    let (server, why) = message.strip_prefix("failed to reach ")?.split_once(": ")?;
    let server = server.strip_prefix("https://").unwrap_or(server);
    why.contains("Connection refused").then_some(server)
}

pub fn report(error: &anyhow::Error) {
    eprintln!("{}", message(error));
}

/// Prefixes what the server said, and nothing else about it.
pub fn while_doing(error: anyhow::Error, doing: &str) -> anyhow::Error {
    match error.downcast::<Status>() {
        Ok(mut status) => {
            status.message = format!("{doing}: {}", status.message);
            status.into()
        }
        Err(error) => error.context(doing.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::Gvr;

    #[test]
    fn messages_are_kubectls() {
        let pods = Gvr::new("", "v1", "pods");
        for (error, said) in [
            (Status::not_found(&pods, "x").into(), "Error from server (NotFound): pods \"x\" not found"),
            (Status::unauthorized().into(), "error: You must be logged in to the server (Unauthorized)"),
            (
                Status::unavailable("failed to reach https://h:1: client error (Connect): Connection refused").into(),
                "The connection to the server h:1 was refused - did you specify the right host or port? (Is `canopus \
                 up` running?)",
            ),
            (Status::new(502, "", "bad gateway").into(), "Error from server: bad gateway"),
            (anyhow::anyhow!("inner").context("outer"), "error: outer: inner"),
        ] {
            assert_eq!(message(&error), said);
        }
        let error = while_doing(Status::not_found(&pods, "x").into(), "error when deleting \"a.yaml\"");
        let said = "Error from server (NotFound): error when deleting \"a.yaml\": pods \"x\" not found";
        assert_eq!(message(&error), said);
    }
}
