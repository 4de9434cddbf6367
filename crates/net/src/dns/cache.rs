//! A small memory of upstream answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Answers are kept no longer than this, whatever they say: the custom of clusters.
const LONGEST: Duration = Duration::from_secs(30);

/// Most answers kept.
const MOST: usize = 10_000;

/// An upstream's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
}

/// What was asked; names compare without case.
pub type Question = (Name, RecordType);

/// Answers by question, each with the times of its arrival and its end.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Question, (Instant, Instant, Reply)>,
}

impl Cache {
    /// The answer, if there is a fresh one, with what remains of its records' lifetimes.
    pub fn get(&self, question: &Question, now: Instant) -> Option<Reply> {
        let (arrived, ends, reply) = self.entries.get(question)?;
        if now >= *ends {
            return None;
        }
        let age = now.saturating_duration_since(*arrived).as_secs() as u32;
        let mut reply = reply.clone();
        for record in reply.answers.iter_mut().chain(&mut reply.authorities) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(reply)
    }

    /// Keeps an answer for as long as it allows; failures not at all.
    pub fn put(&mut self, question: Question, reply: &Reply, now: Instant) {
        let Some(lifetime) = lifetime(reply) else { return };
        if self.entries.len() >= MOST {
            self.entries.retain(|_, (_, ends, _)| now < *ends);
        }
        if self.entries.len() >= MOST {
            self.entries.clear();
        }
        self.entries.insert(question, (now, now + lifetime, reply.clone()));
    }
}

/// The least lifetime among the answers; for their absence what the zone's SOA says.
fn lifetime(reply: &Reply) -> Option<Duration> {
    let seconds = match (reply.code, reply.answers.iter().map(|record| record.ttl).min()) {
        (ResponseCode::NoError, Some(ttl)) => ttl,
        (ResponseCode::NoError | ResponseCode::NXDomain, _) => {
            reply.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            })?
        }
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, SOA};

    #[test]
    fn keeps_answers_as_long_as_they_say() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let a = |ttl| Record::from_rdata(name("a.example."), ttl, RData::A(A::new(192, 0, 2, 1)));
        let soa = SOA::new(name("ns.example."), name("x.example."), 1, 1, 1, 1, 7);
        let soa = Record::from_rdata(name("example."), 60, RData::SOA(soa));
        let reply = |code, answers: &[Record], authorities: &[Record]| Reply {
            code,
            answers: answers.to_vec(),
            authorities: authorities.to_vec(),
        };
        let cases = [
            ("least lifetime", reply(ResponseCode::NoError, &[a(20), a(9)], &[]), 9_u64),
            ("a bound", reply(ResponseCode::NoError, &[a(3600)], &[]), 30),
            ("nothing for zero", reply(ResponseCode::NoError, &[a(0)], &[]), 0),
            ("no such name", reply(ResponseCode::NXDomain, &[], std::slice::from_ref(&soa)), 7),
            ("no data", reply(ResponseCode::NoError, &[], &[soa]), 7),
            ("no data, no SOA", reply(ResponseCode::NoError, &[], &[]), 0),
            ("failure", reply(ResponseCode::ServFail, &[], &[]), 0),
        ];
        let start = Instant::now();
        for (what, reply, kept) in cases {
            let mut cache = Cache::default();
            let question = (name("a.example."), RecordType::A);
            cache.put(question.clone(), &reply, start);
            let upper = (name("A.EXAMPLE."), RecordType::A);
            let at = |seconds| cache.get(&upper, start + Duration::from_secs(seconds));
            assert_eq!(at(kept.saturating_sub(1)).is_some(), kept > 0, "{what}");
            assert_eq!(at(kept), None, "{what}");
            if let Some(later) = at(2) {
                let first = |reply: &Reply| reply.answers.first().map_or(0, |record| record.ttl);
                assert_eq!(first(&later), first(&reply).saturating_sub(2), "{what}");
            }
        }
    }
}
