//! The Accept header: clauses in the order clients prefer them (upstream `goautoneg`), and the first that can be served
//! (upstream `NegotiateMediaTypeOptions`).

use super::compress;
use canopus_api::{Result, Status};
use http::{HeaderMap, header};

/// What resources can be sent as, in the order the server prefers them; and what their watches can.
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAMED: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub const CBOR: &str = "application/cbor";
const CBOR_SEQUENCE: &str = "application/cbor-seq";
/// More clauses than any client sends.
const MAX_CLAUSES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Encoding {
    /// In the order the server prefers them.
    const ALL: [Encoding; 4] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf, Encoding::Cbor];

    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => PROTOBUF,
            Encoding::Cbor => CBOR,
        }
    }

    /// The media type of a watch; YAML has none.
    pub fn stream_type(self) -> &'static str {
        match self {
            Encoding::Json | Encoding::Yaml => "application/json",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            // One body is one item, and a watch is many (RFC 8742).
            Encoding::Cbor => CBOR_SEQUENCE,
        }
    }
}

/// What an answer is to be transformed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Plain,
    Table,
    Metadata,
    MetadataList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub encoding: Encoding,
    pub shape: Shape,
    /// The shape is wanted as of `meta.k8s.io/v1beta1`.
    pub beta: bool,
    pub gzip: bool,
    /// JSON for people: asked for, or a tool of people's.
    pub pretty: bool,
}

impl Accept {
    pub const JSON: Accept =
        Accept { encoding: Encoding::Json, shape: Shape::Plain, beta: false, gzip: false, pretty: false };
}

/// What an endpoint can send.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub protobuf: bool,
    pub cbor: bool,
    pub tables: bool,
    pub metadata: bool,
    pub watch: bool,
}

impl Offer {
    /// Discovery, errors: what has no other shape.
    pub fn plain(cbor: bool) -> Offer {
        Offer { protobuf: true, cbor, tables: false, metadata: false, watch: false }
    }

    /// The media types, as those are told who take none of them.
    fn types(self) -> String {
        let (known, cbor) = if self.watch { (STREAMED, CBOR_SEQUENCE) } else { (ACCEPTED, CBOR) };
        if self.cbor { format!("{known}, {cbor}") } else { known.into() }
    }

    fn takes(self, encoding: Encoding, clause: &Clause) -> Option<Shape> {
        let streams = encoding != Encoding::Yaml;
        let text = |name: &str| clause.parameter(name).unwrap_or("");
        if !["", "watch"].contains(&text("stream")) || !text("stream").is_empty() && !streams {
            return None;
        }
        let resources = self.tables || self.metadata;
        if !(text("sv").is_empty() || resources && text("sv") == "v1") {
            return None;
        }
        let plain = !["as", "g", "v"].iter().any(|name| clause.parameter(name).is_some());
        let known =
            text("g") == "meta.k8s.io" && (text("v") == "v1" || clause.beta() && encoding != Encoding::Protobuf);
        let shape = match text("as") {
            _ if plain => Shape::Plain,
            "Table" if known => Shape::Table,
            "PartialObjectMetadata" if known => Shape::Metadata,
            "PartialObjectMetadataList" if known => Shape::MetadataList,
            _ => return None,
        };
        let served = match shape {
            _ if encoding == Encoding::Cbor && !self.cbor => false,
            Shape::Plain => encoding != Encoding::Protobuf || self.protobuf,
            Shape::Table => self.tables && matches!(encoding, Encoding::Json | Encoding::Yaml),
            Shape::Metadata | Shape::MetadataList => self.metadata,
        };
        served.then_some(shape)
    }
}

struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';');
        let kind = parts.next()?.trim();
        let (main, sub) = match kind.split_once('/') {
            Some((main, sub)) if !sub.contains('/') => (main.trim(), sub.trim()),
            None if kind == "*" => ("*", "*"),
            _ => return None,
        };
        let mut clause = Clause { main, sub, quality: 1.0, parameters: Vec::new() };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                name => clause.parameters.push((name, value.trim())),
            }
        }
        Some(clause)
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn beta(&self) -> bool {
        self.parameter("v") == Some("v1beta1")
    }

    fn matches(&self, encoding: Encoding) -> bool {
        let (main, sub) = encoding.media_type().split_once('/').unwrap_or_default();
        self.is(main, sub)
    }

    fn is(&self, main: &str, sub: &str) -> bool {
        (self.main == main && (self.sub == sub || self.sub == "*")) || (self.main == "*" && self.sub == "*")
    }

    /// Upstream's order, which is not a total one.
    fn before(&self, other: &Clause) -> bool {
        self.quality > other.quality || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }
}

/// The clauses of a header, the preferred first.
fn clauses(text: &str) -> Vec<Clause<'_>> {
    let mut sorted: Vec<Clause> = Vec::new();
    for clause in text.split(',').filter_map(Clause::parse).take(MAX_CLAUSES) {
        let mut at = sorted.len();
        while at > 0 && clause.before(&sorted[at - 1]) {
            at -= 1;
        }
        sorted.insert(at, clause);
    }
    sorted
}

fn header(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// What to send to a client that accepts this; `query_pretty` is the request's `pretty` parameter.
pub fn accept(headers: &HeaderMap, query_pretty: &str, offer: Offer) -> Result<Accept> {
    let gzip = compress::accepted(headers);
    let human = || {
        let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
    };
    let asked = match query_pretty {
        "" => human(),
        text => ["1", "t", "T", "true", "TRUE", "True"].contains(&text),
    };
    let text = header(headers);
    if text.is_empty() {
        return Ok(Accept { gzip, pretty: asked, ..Accept::JSON });
    }
    for clause in clauses(text) {
        for encoding in Encoding::ALL.into_iter().filter(|encoding| clause.matches(*encoding)) {
            if offer.watch && encoding == Encoding::Yaml {
                continue;
            }
            if let Some(shape) = offer.takes(encoding, &clause) {
                let pretty = asked || clause.parameter("pretty") == Some("1");
                let beta = shape != Shape::Plain && clause.beta();
                return Ok(Accept { encoding, shape, beta, gzip, pretty });
            }
        }
    }
    Err(Status::not_acceptable(&offer.types()))
}

/// How a page for people is sent: as text (None), or as an object of one of the `versions` of its kind in `config.k8s.io`.
pub fn page<'a>(
    headers: &HeaderMap,
    kind: &str,
    versions: &[&'a str],
    cbor: bool,
) -> Result<Option<(Accept, &'a str)>> {
    let text = header(headers);
    if text.trim().is_empty() {
        return Ok(None);
    }
    let of_kind = |clause: &Clause| {
        let named = clause.parameter("as") == Some(kind) && clause.parameter("g") == Some("config.k8s.io");
        versions.iter().find(|version| named && clause.parameter("v") == Some(version)).copied()
    };
    for clause in clauses(text) {
        if ["stream", "sv"].iter().any(|name| clause.parameter(name).is_some()) {
            continue;
        }
        let served = [(Encoding::Json, true), (Encoding::Yaml, true), (Encoding::Cbor, cbor)];
        let served = served.into_iter().find(|(encoding, served)| *served && clause.matches(*encoding));
        if let (Some((encoding, _)), Some(version)) = (served, of_kind(&clause)) {
            let gzip = compress::accepted(headers);
            let pretty = clause.parameter("pretty") == Some("1");
            return Ok(Some((Accept { encoding, gzip, pretty, ..Accept::JSON }, version)));
        }
        let plain = !["as", "g", "v"].iter().any(|name| clause.parameter(name).is_some());
        if plain && clause.is("text", "plain") {
            return Ok(None);
        }
    }
    let types = "application/json, application/yaml, text/plain";
    Err(Status::not_acceptable(&if cbor { format!("{types}, {CBOR}") } else { types.into() }))
}

/// What a body may be, as those are told who send another.
pub fn accepted(cbor: bool) -> String {
    Offer::plain(cbor).types()
}

/// Which of the offered media types the client likes best; the first if it does not say.
pub fn preferred(headers: &HeaderMap, offered: &[&str]) -> Option<usize> {
    let text = header(headers);
    let clauses = clauses(if text.is_empty() { "*/*" } else { text });
    clauses.iter().find_map(|clause| {
        offered.iter().position(|kind| {
            let (main, sub) = kind.split_once('/').unwrap_or_default();
            (clause.main == main || clause.main == "*") && (clause.sub == sub || clause.sub == "*")
        })
    })
}

/// The encoding in which the client takes aggregated discovery, if it does (KEP-3352).
pub fn aggregated(headers: &HeaderMap) -> Option<Encoding> {
    let wanted = |clause: &Clause| {
        clause.parameter("g") == Some("apidiscovery.k8s.io")
            && clause.parameter("v") == Some("v2")
            && clause.parameter("as") == Some("APIGroupDiscoveryList")
    };
    let order = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];
    let clauses = clauses(header(headers));
    let clause = clauses.iter().find(|clause| wanted(clause) && order.iter().any(|e| clause.matches(*e)))?;
    order.into_iter().find(|encoding| clause.matches(*encoding))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: Offer = Offer { protobuf: true, cbor: false, tables: true, metadata: true, watch: false };

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        headers
    }

    #[test]
    fn the_first_that_can_be_served() {
        use Encoding::{Cbor, Json, Protobuf, Yaml};
        let cbor = Offer { cbor: true, ..RESOURCE };
        let partial = "application/cbor;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let custom = Offer { protobuf: false, ..RESOURCE };
        let watch = Offer { watch: true, ..RESOURCE };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let metadata_first = format!("{metadata},application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
        for (text, offer, expected) in [
            ("application/vnd.kubernetes.protobuf, */*", RESOURCE, Some((Protobuf, Shape::Plain))),
            ("application/vnd.kubernetes.protobuf, */*", custom, Some((Json, Shape::Plain))),
            ("application/vnd.kubernetes.protobuf", custom, None),
            ("application/json;q=0.5, application/yaml", RESOURCE, Some((Yaml, Shape::Plain))),
            ("*/*, application/yaml;q=0.1", RESOURCE, Some((Yaml, Shape::Plain))),
            ("application/*;q=0.9", RESOURCE, Some((Json, Shape::Plain))),
            ("*", RESOURCE, Some((Json, Shape::Plain))),
            ("text/html, nonsense, a/b/c", RESOURCE, None),
            (table, RESOURCE, Some((Json, Shape::Table))),
            (table, Offer::plain(false), Some((Json, Shape::Plain))),
            (&table.replace("v=v1", "v=v9"), RESOURCE, Some((Json, Shape::Plain))),
            (&table.replace("v=v1", "v=v1beta1"), RESOURCE, Some((Json, Shape::Table))),
            (&metadata.replace("v=v1", "v=v1beta1"), RESOURCE, None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", RESOURCE, None),
            (&metadata_first, RESOURCE, Some((Protobuf, Shape::Metadata))),
            (metadata, custom, Some((Protobuf, Shape::Metadata))),
            ("application/json;stream=watch", watch, Some((Json, Shape::Plain))),
            ("application/json;stream=x", watch, None),
            ("application/yaml", watch, None),
            ("application/cbor, application/json;q=0.9", cbor, Some((Cbor, Shape::Plain))),
            ("application/cbor, application/json;q=0.9", RESOURCE, Some((Json, Shape::Plain))),
            ("application/cbor", RESOURCE, None),
            ("application/cbor", Offer { watch: true, ..cbor }, Some((Cbor, Shape::Plain))),
            ("application/cbor-seq", Offer { watch: true, ..cbor }, None),
            ("application/*", cbor, Some((Json, Shape::Plain))),
            (partial, cbor, Some((Cbor, Shape::Metadata))),
            (partial, RESOURCE, None),
            ("application/cbor;as=Table;g=meta.k8s.io;v=v1", cbor, None),
            ("application/json;sv=v1", RESOURCE, Some((Json, Shape::Plain))),
            ("application/json;sv=v2", RESOURCE, None),
        ] {
            let got = accept(&headers(text), "", offer).ok().map(|a| (a.encoding, a.shape));
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn people_get_json_they_can_read() {
        let mut headers = headers("application/json;pretty=1");
        assert!(accept(&headers, "", Offer::plain(false)).unwrap().pretty);
        headers.remove(header::ACCEPT);
        assert!(accept(&headers, "true", Offer::plain(false)).unwrap().pretty);
        headers.insert(header::USER_AGENT, "curl/8".parse().unwrap());
        assert!(accept(&headers, "", Offer::plain(false)).unwrap().pretty);
        assert!(!accept(&headers, "0", Offer::plain(false)).unwrap().pretty);
    }

    #[test]
    fn aggregated_discovery_wins_over_plain() {
        let v2 = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let of = |text: String| aggregated(&headers(&text));
        assert_eq!(of(format!("application/json,application/json;{v2}")), Some(Encoding::Json));
        assert_eq!(of(format!("application/vnd.kubernetes.protobuf;{v2},application/json")), Some(Encoding::Protobuf));
        assert_eq!(of("application/json".into()), None);
    }

    #[test]
    fn pages_for_people() {
        let object = "application/json;as=Statusz;g=config.k8s.io;v=v1beta1";
        for (text, expected) in [
            ("", Some("text")),
            ("*/*", Some("text")),
            ("text/html, text/*", Some("text")),
            ("application/json", None),
            ("application/json, text/plain;q=0.1", Some("text")),
            (object, Some("v1beta1")),
            (&object.replace("v1beta1", "v1alpha1"), Some("v1alpha1")),
            (&object.replace("v1beta1", "v1"), None),
            (&object.replace("Statusz", "Flagz"), None),
            (&object.replace("json", "yaml"), Some("v1beta1")),
            (&object.replace("json", "cbor"), None),
            ("text/plain;as=Statusz;g=config.k8s.io;v=v1beta1", None),
        ] {
            let found = page(&headers(text), "Statusz", &["v1alpha1", "v1beta1"], false);
            let found = found.ok().map(|found| found.map_or("text", |(_, version)| version));
            assert_eq!(found, expected, "{text}");
        }
    }
}
