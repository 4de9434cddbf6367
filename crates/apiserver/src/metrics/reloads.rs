//! `apiserver_{authentication,authorization}_config_controller_*`: files that are read again when they change. Nothing is
//! shown of files that there are not.

use super::family::{Head, labels, sample};
use canopus_api::Time;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// A hash as upstream's metrics show it.
pub fn hash(data: &str) -> String {
    Sha256::digest(data).iter().fold("sha256:".to_string(), |text, byte| format!("{text}{byte:02x}"))
}

/// The server's own name: `apiserver-` and a hash of the host's (upstream `APIServerID`).
pub fn server_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let digest = Sha256::digest(host.as_encoded_bytes());
        format!("apiserver-{}", base32(&digest[..16]))
    })
}

/// RFC 4648, in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut text, mut bits, mut count) = (String::new(), 0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(ALPHABET[(bits >> count & 31) as usize]));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - count) & 31) as usize]));
    }
    text
}

#[derive(Default)]
struct Seen {
    /// The hash of the file that is in force.
    applied: Option<String>,
    /// How often, and when last: in vain and with success.
    outcomes: [(u64, f64); 2],
}

/// What became of one file.
#[derive(Default)]
pub struct Reloads(Mutex<Seen>);

impl Reloads {
    /// The file that was read at start.
    pub fn began(&self, text: &str) {
        self.0.lock().applied = Some(hash(text));
    }

    /// It was read again; the text when it is in force now.
    pub fn again(&self, applied: Option<&str>, now: Time) {
        let mut seen = self.0.lock();
        let (count, last) = &mut seen.outcomes[usize::from(applied.is_some())];
        (*count, *last) = (*count + 1, now.0 as f64 / 1e6);
        if let Some(text) = applied {
            seen.applied = Some(hash(text));
        }
    }

    /// `what`: authentication or authorization.
    pub fn write(&self, what: &str, out: &mut String) {
        let seen = self.0.lock();
        let Some(applied) = &seen.applied else { return };
        let id = hash(server_id());
        let name = |rest: &str| format!("apiserver_{what}_config_controller_{rest}");
        let outcomes = ["failure", "success"].into_iter().zip(seen.outcomes).filter(|(_, (count, _))| *count > 0);
        let (total, last, info) = (
            name("automatic_reloads_total"),
            name("automatic_reload_last_timestamp_seconds"),
            name("last_config_info"),
        );
        let help = format!(
            "Total number of automatic reloads of {what} configuration split by status and apiserver identity."
        );
        Head { name: &total, stability: "BETA", help: &help }.write("counter", out);
        for (status, (count, _)) in outcomes.clone() {
            sample(&total, &labels(&["apiserver_id_hash", "status"], &[id.as_str(), status]), count, out);
        }
        let help = format!(
            "Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity."
        );
        Head { name: &last, stability: "BETA", help: &help }.write("gauge", out);
        for (status, (_, when)) in outcomes {
            sample(&last, &labels(&["apiserver_id_hash", "status"], &[id.as_str(), status]), when, out);
        }
        let help = format!(
            "Information about the last applied {what} configuration with hash as label, split by apiserver identity."
        );
        Head { name: &info, stability: "ALPHA", help: &help }.write("gauge", out);
        sample(&info, &labels(&["apiserver_id_hash", "hash"], &[id.as_str(), applied.as_str()]), 1, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_file() {
        let (reloads, mut text) = (Reloads::default(), String::new());
        reloads.write("authorization", &mut text);
        assert_eq!(text, "");
        reloads.began("one");
        reloads.again(None, Time::from_unix(5));
        reloads.again(Some("two"), Time::from_unix(6));
        reloads.write("authorization", &mut text);
        let id = hash(server_id());
        for line in [
            format!(
                "apiserver_authorization_config_controller_automatic_reloads_total{{apiserver_id_hash=\"{id}\",status=\"failure\"}} 1\n"
            ),
            format!(
                "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds{{apiserver_id_hash=\"{id}\",status=\"success\"}} 6\n"
            ),
            format!(
                "apiserver_authorization_config_controller_last_config_info{{apiserver_id_hash=\"{id}\",hash=\"{}\"}} 1\n",
                hash("two")
            ),
        ] {
            assert!(text.contains(&line), "{line} in\n{text}");
        }
    }

    #[test]
    fn base_32() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }
}
