//! The plugin: `v2.KeyManagementService` on a Unix socket.

use super::envelope::{Source, annotation, text, with_annotations};
use crate::encryption::metrics::Metrics;
use crate::outgoing::grpc::{Channel, Fault, Place};
use crate::outgoing::message::Message;
use bytes::Bytes;
use canopus_api::protobuf::{Fields, Wire};
use std::sync::Arc;
use std::time::{Duration, Instant};

const STATUS: &str = "/v2.KeyManagementService/Status";
const ENCRYPT: &str = "/v2.KeyManagementService/Encrypt";
const DECRYPT: &str = "/v2.KeyManagementService/Decrypt";
/// What gRPC's clients take by default.
const MAX_ANSWER: usize = 4 << 20;

/// What a plugin says of itself.
#[derive(Debug, Default)]
pub struct Status {
    pub version: String,
    pub healthz: String,
    pub key_id: String,
}

pub struct Service {
    channel: Channel,
    provider: String,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Service {
    pub fn new(socket: Place, provider: String, timeout: Duration, metrics: Arc<Metrics>) -> Service {
        Service { channel: Channel::waiting(socket), provider, timeout, metrics }
    }

    async fn call(&self, method: &str, message: Message) -> Result<Bytes, Fault> {
        let begun = Instant::now();
        let answer = self.channel.call(method, &message.finish(), MAX_ANSWER, self.timeout).await;
        let code = answer.as_ref().map_or_else(|fault| fault.code, |_| "OK");
        self.metrics.operations.observe([&self.provider, method, code], begun.elapsed().as_secs_f64());
        answer
    }

    pub async fn status(&self) -> Result<Status, Fault> {
        let answer = self.call(STATUS, Message::default()).await?;
        let mut status = Status::default();
        read(&answer, |number, bytes| {
            match number {
                1 => status.version = text(bytes)?,
                2 => status.healthz = text(bytes)?,
                3 => status.key_id = text(bytes)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(status)
    }

    /// Encrypts what will be a source of this kind.
    pub async fn encrypt(&self, uid: &str, plain: &[u8], kind: u64) -> Result<Source, Fault> {
        let question = Message::default().bytes(1, plain).bytes(2, uid.as_bytes());
        let answer = self.call(ENCRYPT, question).await?;
        let mut source = Source { kind, ..Source::default() };
        read(&answer, |number, bytes| {
            match number {
                1 => source.encrypted = bytes.into(),
                2 => source.key_id = text(bytes)?,
                3 => annotation(bytes, &mut source.annotations)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(source)
    }

    pub async fn decrypt(&self, uid: &str, source: &Source) -> Result<Vec<u8>, Fault> {
        let question =
            Message::default().bytes(1, &source.encrypted).bytes(2, uid.as_bytes()).bytes(3, source.key_id.as_bytes());
        let answer = self.call(DECRYPT, with_annotations(question, 4, &source.annotations)).await?;
        let mut plain = Vec::new();
        read(&answer, |number, bytes| {
            if number == 1 {
                plain = bytes.into();
            }
            Ok(())
        })?;
        Ok(plain)
    }
}

/// Calls `visit` with each field of an answer, all of which are bytes.
fn read(answer: &[u8], mut visit: impl FnMut(u32, &[u8]) -> Result<(), String>) -> Result<(), Fault> {
    let malformed = |why: String| Fault { code: "Internal", message: format!("malformed answer: {why}") };
    for field in Fields::of(answer) {
        if let (number, Wire::Bytes(bytes)) = field.map_err(|e| malformed(e.to_string()))? {
            visit(number, bytes).map_err(malformed)?;
        }
    }
    Ok(())
}
