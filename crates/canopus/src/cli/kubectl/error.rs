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
        Some(status) if status.message.starts_with("failed to reach ") => {
            format!("Unable to connect to the server: {}", status.message)
        }
        Some(status) if status.reason.is_empty() => format!("Error from server: {}", status.message),
        Some(status) => format!("Error from server ({}): {}", status.reason, status.message),
    }
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
