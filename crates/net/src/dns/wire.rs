//! Requests as they come in and responses as they go out.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};

/// Largest UDP message sent, and largest asked for: what fits an unfragmented packet everywhere.
pub const UDP_SIZE: usize = 1232;

/// Largest UDP message to a client that doesn't say what it takes.
const PLAIN_UDP_SIZE: usize = 512;

/// A question that deserves an answer.
#[derive(Debug, Clone)]
pub struct Request {
    pub query: Query,
    head: Message,
    /// Largest response by UDP.
    size: usize,
}

/// The records of a response.
#[derive(Debug, Default)]
pub struct Response {
    pub code: ResponseCode,
    pub authoritative: bool,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

/// Reads a request. Anything else is answered by the message in `Err`, or, where that could start an argument
/// between servers, by nothing.
pub fn read(bytes: &[u8]) -> Result<Request, Option<Vec<u8>>> {
    let Some(&[id_high, id_low, flags, ..]) = bytes.get(..12) else { return Err(None) };
    let id = u16::from_be_bytes([id_high, id_low]);
    if flags & 0x80 != 0 {
        return Err(None);
    }
    let op = OpCode::from_u8((flags >> 3) & 0xf);
    let refuse = |code| Err(Message::error_msg(id, op, code).to_vec().ok());
    if op != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let Ok(message) = Message::from_vec(bytes) else { return refuse(ResponseCode::FormErr) };
    let [query] = message.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
    match (query.query_class(), query.query_type()) {
        (_, RecordType::AXFR | RecordType::IXFR) => return refuse(ResponseCode::NotImp),
        (DNSClass::IN, _) => {}
        _ => return refuse(ResponseCode::Refused),
    }
    let mut head = Message::new(id, MessageType::Response, OpCode::Query);
    head.metadata.recursion_desired = message.metadata.recursion_desired;
    head.metadata.checking_disabled = message.metadata.checking_disabled;
    head.metadata.recursion_available = true;
    head.add_query(query.clone());
    let size = match &message.edns {
        Some(asked) => {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_SIZE as u16);
            head.set_edns(edns);
            if asked.version() > 0 {
                head.metadata.response_code = ResponseCode::BADVERS;
                return Err(head.to_vec().ok());
            }
            usize::from(asked.max_payload()).clamp(PLAIN_UDP_SIZE, UDP_SIZE)
        }
        None => PLAIN_UDP_SIZE,
    };
    Ok(Request { query: query.clone(), head, size })
}

impl Request {
    /// The response in bytes: for UDP with as many records as fit, and the sign that some don't.
    pub fn respond(&self, response: Response, udp: bool) -> Option<Vec<u8>> {
        let limit = if udp { self.size } else { usize::from(u16::MAX) };
        let mut message = self.head.clone();
        message.metadata.response_code = response.code;
        message.metadata.authoritative = response.authoritative;
        message.add_answers(response.answers);
        message.add_authorities(response.authorities);
        message.add_additionals(response.additionals);
        let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
        if let Some(bytes) = fits(&message) {
            return Some(bytes);
        }
        // Nobody needs the additional records; they can be asked for.
        message.additionals.clear();
        if let Some(bytes) = fits(&message) {
            return Some(bytes);
        }
        message.metadata.truncation = true;
        message.authorities.clear();
        let (mut few, mut many) = (0, message.answers.len());
        let all = std::mem::take(&mut message.answers);
        while few < many {
            let middle = (few + many).div_ceil(2);
            message.answers = all[..middle].to_vec();
            if fits(&message).is_some() { few = middle } else { many = middle - 1 }
        }
        message.answers = all[..few].to_vec();
        fits(&message)
    }
}
