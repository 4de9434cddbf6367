//! Running nft.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::base::{TABLE, words};
use super::state::Family;
use crate::netns::NetNs;

/// Why nft failed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("failed to run nft; is nftables installed?")]
    Run(#[source] io::Error),
    #[error("nft refused: {0}")]
    Refused(String),
    #[error("nft's answer could not be understood: {0}")]
    Answer(String),
}

/// Runs nft in one network namespace.
#[derive(Debug)]
pub struct Nft {
    netns: NetNs,
}

/// A remembered client: it goes to this endpoint of this pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub pool: u32,
    pub client: IpAddr,
    pub endpoint: (IpAddr, u16),
}

impl Nft {
    /// Works on the calling thread's namespace, whichever thread uses it later.
    pub fn open() -> Result<Nft, NftError> {
        Ok(Nft { netns: NetNs::current().map_err(NftError::Run)? })
    }

    /// Loads a script: all of it or nothing.
    pub fn load(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], script).map(drop)
    }

    /// The clients remembered for session affinity.
    pub fn remembered(&self, family: Family) -> Result<Vec<Remembered>, NftError> {
        parse_remembered(&self.run(&["-j", "list", "map", words(family).ip, TABLE, "affinity"], "")?)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String, NftError> {
        let work = || {
            let mut child = Command::new("nft")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // nft reads its input to the end before it answers. If it dies first, its status says why.
                let _ = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        };
        let output = self.netns.run(work).and_then(|inner| inner).map_err(NftError::Run)?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(NftError::Refused(message.trim().chars().take(2000).collect()));
        }
        String::from_utf8(output.stdout).map_err(|error| NftError::Answer(error.to_string()))
    }
}

/// Reads the JSON of the affinity map. Elements of another shape are passed over.
fn parse_remembered(json: &str) -> Result<Vec<Remembered>, NftError> {
    let answer: Value = serde_json::from_str(json).map_err(|error| NftError::Answer(error.to_string()))?;
    let objects = answer["nftables"].as_array().ok_or_else(|| NftError::Answer("no list of objects".into()))?;
    let elements = objects.iter().filter_map(|object| object["map"]["elem"].as_array()).flatten();
    Ok(elements.filter_map(parse_element).collect())
}

fn parse_element(element: &Value) -> Option<Remembered> {
    // With a time-out the key is wrapped: {"elem": {"val": KEY, "timeout": 10800, "expires": 10000}}.
    let key = match &element[0]["elem"]["val"] {
        Value::Null => &element[0],
        wrapped => wrapped,
    };
    let (key, value) = (&key["concat"], &element[1]["concat"]);
    Some(Remembered {
        pool: u32::try_from(key[0].as_u64()?).ok()?,
        client: key[1].as_str()?.parse().ok()?,
        endpoint: (value[0].as_str()?.parse().ok()?, u16::try_from(value[1].as_u64()?).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_remembered_clients() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"map": {"family": "ip", "name": "affinity",
            "elem": [[{"elem": {"val": {"concat": [3, "10.1.1.1"]}, "timeout": 9, "expires": 8}}, {"concat": ["10.1.1.3", 81]}],
                     [{"concat": [4, "fd00::1"]}, {"concat": ["fd00::2", 82]}], "odd"]}}]}"#;
        let client = |pool, client: &str, ip: &str, port| Remembered {
            pool,
            client: client.parse().unwrap(),
            endpoint: (ip.parse().unwrap(), port),
        };
        let expected = [client(3, "10.1.1.1", "10.1.1.3", 81), client(4, "fd00::1", "fd00::2", 82)];
        assert_eq!(parse_remembered(json).unwrap(), expected);
        assert!(parse_remembered("{}").is_err());
    }
}
